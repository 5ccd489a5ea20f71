"""Reading small files that may come from anyone: no file blocks the reader or fills the memory."""

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 24  # larger than any configuration, manifest, recipe or list of git's


def read_small_file(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file. Raises OSError for anything else, and for a file of more than `max_bytes` bytes."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would wait for its writer
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > max_bytes:
            raise OSError(
                errno.EFBIG, f"it has {status.st_size:,} bytes; more than {max_bytes:,} are refused", str(path)
            )
        return file.read(max_bytes)
