"""Who started a run, which process writes it, and whether that process is still alive."""

import getpass
import os
import platform
import re
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from aelab.errors import UserError
from aelab.files import read_small_file

PROCESS_DIED = "its process ended unexpectedly"  # how the tag aelab.reason of such a run begins


class HeldError(UserError):
    """Another process is writing the run."""


def lock_path(folder: Path) -> Path:
    """The lock file of a run's folder, which is beside the folder."""
    return folder.with_name(folder.name + ".lock")


def hold(folder: Path, name: str, who: str = "") -> FileLock:
    """Locks a run until release, or until this process ends. Raises HeldError if another process holds the lock."""
    lock = FileLock(lock_path(folder), timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        host, number, *_ = [*who.split(), "", ""]
        other = f" (process {number} on {host})" if number else ""
        raise HeldError(
            f"{name} is being written by another process{other}.", "Wait for it, or stop it first."
        ) from error
    except OSError as error:
        raise UserError(f"cannot write to {folder.parent}: {error.strerror or error}") from error
    return lock


def this_process() -> str:
    """Host, process id and start time: the value of the tag aelab.process."""
    return f"{platform.node()} {os.getpid()} {_started(os.getpid())}"


def slurm_job() -> str:
    """The job of Slurm that this process belongs to, such as 123 or, in a job array, 123_4; empty outside of Slurm."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def is_gone(process: str, folder: Path) -> bool:
    """Whether the process of a run has died: it ran on this host, no longer exists, and no process holds the run's lock."""
    host, _, rest = process.partition(" ")
    number, _, started = rest.partition(" ")
    if host != platform.node() or not number.isdigit():
        return False
    now = _started(int(number))
    if now is not None and now == started:
        return False
    if not lock_path(folder).exists():
        return True
    try:
        with FileLock(lock_path(folder), timeout=0):
            return True
    except (Timeout, OSError):
        return False


def _started(number: int) -> str | None:
    """When a process started, in kernel ticks; empty if the system does not tell; None if there is no such process."""
    try:
        state, *fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return None if state == "Z" else fields[18]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return ""


def origin() -> dict[str, str]:
    """MLflow's own tags for who started a run and from which source."""
    tags = {"mlflow.source.name": "aelab", "mlflow.source.type": "LOCAL"}
    with suppress(OSError, KeyError, ImportError):  # an account without a name
        tags["mlflow.user"] = getpass.getuser()
    if found := commit(Path.cwd()):
        tags["mlflow.source.git.commit"] = found
    return tags


def commit(folder: Path) -> str | None:
    """The commit that is checked out in a folder, read from git's files; None if there is none.

    git itself is not run: it executes programs that the folder's configuration names (core.fsmonitor, filters, hooks), and
    the folder may come from anyone. So local changes go unnoticed, but a run keeps the source of its recipe.
    """
    place = next((p for parent in (folder, *folder.parents) if (p := parent / ".git").exists()), folder / ".git")
    if place.is_file():  # of a worktree or submodule
        place = place.parent / _text(place).removeprefix("gitdir: ").strip()
    head = _text(place / "HEAD").strip()
    if head.startswith("ref: refs/") and ".." not in head:
        name = head.removeprefix("ref: ")
        common = place / _text(place / "commondir").strip()  # the branches of a worktree are those of the repository
        packed = (line.split(" ") for line in _text(common / "packed-refs").splitlines())
        head = _text(common / name).strip() or next((line[0] for line in packed if line[1:] == [name]), "")
    return head if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", head) else None


def _text(path: Path) -> str:
    """The text of a small regular file; empty if it cannot be read."""
    with suppress(OSError, ValueError):
        return read_small_file(path).decode()
    return ""
