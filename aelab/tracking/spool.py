"""What a run has logged, as lines of a local file, until the store has all of it."""

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aelab.figures import Picture

Entry = list[Any]
"""A kind and its fields:

metric, key, value, ms, step, and of a LoggedModel: its id, data set, digest | tags, {...} | picture, key, step, file
| file, path | model, folder | end, status, ms
"""
PICTURE_FILE = re.compile(r"[A-Za-z0-9.~-]*-\d+\.png")  # the names that `keep` gives


def open_to_append(path: Path) -> int:
    """Opens a file of the run for appending, and creates it if necessary. Raises OSError for a link or an unread pipe."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)


class Spool:
    """A file of entries, and beside it a folder with their pictures.

    Writing never raises: on a full disk an entry is in memory only, and `trouble` says so.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.pictures = path, path.with_suffix("")
        self.trouble = ""
        self._file: int | None = None
        self._torn = path.exists()  # its last line may be incomplete

    def write(self, entry: Entry) -> None:
        line = json.dumps(entry) + "\n"
        try:
            if self._file is None:
                self._file = open_to_append(self.path)
            content = (("\n" if self._torn else "") + line).encode()
            self._torn = os.write(self._file, content) != len(content)
            self.trouble = f"{self.path}: not all of it was written" if self._torn else ""
        except OSError as error:
            self._torn, self.trouble = True, f"{error.strerror} ({self.path})"

    def keep(self, key: str, step: int, picture: "Picture") -> str:
        """Writes a picture to a file beside the spool. Returns the name of the file, or an empty string if that failed."""
        name = f"{re.sub(r'[^A-Za-z0-9.-]', '~', key)}-{step}.png"
        import PIL.Image

        try:
            self.pictures.mkdir(exist_ok=True)
            PIL.Image.fromarray(picture).save(self.pictures / name, compress_level=1)
        except OSError as error:
            self.trouble = f"{error.strerror} ({self.pictures})"
            return ""
        return name

    def picture(self, name: str) -> "Picture | None":
        """A picture that was kept; None if its file is missing or damaged."""
        import numpy as np
        import PIL.Image

        try:
            with PIL.Image.open(self.pictures / Path(name).name, formats=("PNG",)) as image:
                return np.asarray(image.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            return None

    def forget(self, name: str) -> None:
        """Deletes a picture that the store has."""
        with suppress(OSError):
            (self.pictures / Path(name).name).unlink()

    def entries(self) -> Iterator[Entry]:
        """The entries of the file. An incomplete line is skipped."""
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return
        for line in text.splitlines():
            with suppress(ValueError):
                entry = json.loads(line)
                if isinstance(entry, list) and entry:
                    yield entry

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def remove(self) -> None:
        """Deletes the file, its pictures and their folder, once the store has everything. Links are not followed."""
        self.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
            if self.pictures.is_dir() and not self.pictures.is_symlink():
                for left in self.pictures.iterdir():
                    if PICTURE_FILE.fullmatch(left.name):
                        left.unlink()
                self.pictures.rmdir()
