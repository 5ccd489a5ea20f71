"""Small files that anyone may have put there, read so that none hangs or fills the memory."""

import errno
import os
import stat
from pathlib import Path

MOST_BYTES = 1 << 24  # of a configuration, a manifest, a recipe, one of git's lists


def small(path: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a regular file. Raises OSError for a pipe, a device or a folder, and for one of more than `most` bytes."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # a pipe would wait for its writer
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_size > most:
            raise OSError(errno.EFBIG, f"it has {status.st_size:,} bytes; more than {most:,} are refused", str(path))
        return file.read(most)
