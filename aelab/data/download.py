"""Downloads one file: resumable, checked by size and sha256, and renamed only once it is complete."""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

import platformdirs
from filelock import FileLock

from aelab.errors import UserError
from aelab.progress_bar import progress_bar

TIMEOUT = 4.0  # seconds without an answer before a mirror is given up
BLOCK = 1 << 18


@dataclass(frozen=True)
class Remote:
    """A file of a data set: its name, its size in bytes, its digest, and the addresses that serve it (https only).

    To an address that ends with a slash, the name is added.
    """

    name: str
    size: int
    sha256: str
    mirrors: Sequence[str]


class Offline(UserError):
    """No mirror of a file could be reached."""


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(remote: Remote, folder: Path) -> Path:
    """Downloads `remote` into `folder` and returns its path.

    Writes to `NAME.part`, continues a part that is there, and renames it only if its digest is right. Raises Offline if no
    mirror provides the file, and UserError if it cannot be written to the disk.
    """
    target = folder / remote.name
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        locks = Path(platformdirs.user_cache_dir("aelab")) / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with FileLock(locks / f"{remote.sha256}.lock"):  # another process may be fetching it
            if target.exists():
                return target
            for mirror in remote.mirrors:
                try:
                    return _from(mirror, target, remote)
                except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
                    reasons.append(f"{mirror}: {getattr(error, 'reason', error)}")
    except OSError as error:
        raise UserError(f"cannot write {error.filename or target}: {error.strerror or error}") from error
    raise Offline(f"{remote.name} could not be downloaded.", "  ".join(reasons))


def _from(mirror: str, target: Path, remote: Remote) -> Path:
    """Downloads the whole file from one mirror. If a continued part has the wrong digest, starts once more from nothing."""
    part = target.with_name(target.name + ".part")
    for resumed in (part.exists(), False):
        _download(mirror + remote.name if mirror.endswith("/") else mirror, part, remote)
        if sha256(part) == remote.sha256:
            return part.replace(target)
        part.unlink()
        if not resumed:
            break
    raise ConnectionError(f"what it sent is not {remote.name} (sha256 differs)")


def _download(url: str, part: Path, remote: Remote) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have >= remote.size:
        part.unlink()  # complete but wrong: start again
        have = 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
        resumed = have > 0 and answer.status == 206
        done = have if resumed else 0
        with part.open("ab" if resumed else "wb") as file, progress_bar(remote.name, remote.size, done) as bar:
            while done < remote.size and (block := answer.read(min(BLOCK, remote.size - done))):
                file.write(block)
                done += len(block)
                bar.update(done)
    if done < remote.size:
        raise ConnectionError(f"broke off after {done} of {remote.size} bytes; the next attempt continues from there")
