"""Checks the free memory before it is used: the kernel kills a process that uses more, and no message can be shown then."""

import os
from pathlib import Path

from aelab.errors import UserError

PROC, GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def require(needed: int, what: str, *advice: str) -> None:
    """Raises UserError if `what` needs more bytes than are free."""
    free = available()
    if needed > free:
        raise UserError(
            f"{what} need {_gigabytes(needed)} of memory, and {_gigabytes(free)} are free.", *advice, code=2
        )


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:,.0f} GB" if size >= 10e9 else f"{size / 1e9:.1f} GB"


def available() -> int:
    """The bytes that this process can still use: the machine's free memory, or less if its control groups have limits."""
    return max(0, min([_free_memory(), *_free_in_groups()]))


def _free_memory() -> int:
    """The machine's free memory, caches that can be dropped included; its total memory if the system does not say."""
    try:
        lines = (PROC / "meminfo").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_in_groups() -> list[int]:
    """The memory left in each control group of this process, and in each group above it, that has a limit."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, names = GROUPS, ("memory.max", "memory.current", "inactive_file")  # version 2
        elif "memory" in controllers.split(","):
            root, names = GROUPS / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        here = root / path.lstrip(
            "/"
        )  # in a container this may be the host's path, which does not exist: its root does
        found += [_free_in_group(group, *names) for group in (here, *here.parents) if group.is_relative_to(root)]
    return [left for left in found if left is not None]


def _free_in_group(group: Path, limit: str, usage: str, cached: str) -> int | None:
    """The memory left in one control group, cached files not counted; None if it has no limit."""
    try:
        stat = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        return int((group / limit).read_text()) - int((group / usage).read_text()) + int(stat.get(cached, 0))
    except (OSError, ValueError):  # no such file, or "max"
        return None
