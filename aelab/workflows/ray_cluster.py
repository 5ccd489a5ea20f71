"""Trains the points of a sweep as tasks of a Ray cluster."""

from collections.abc import Sequence
from pathlib import Path

from aelab.errors import UserError
from aelab.tracking import Store
from aelab.workflows.launching import Job


def check(address: str | None) -> None:
    """Raises UserError if no cluster answers at the address."""
    raise UserError("--launcher ray: no Ray cluster answers.", code=2)


def run_all(jobs: Sequence[Job], at_once: int, store: Store, data_dir: Path | None, address: str | None) -> list[str]:
    """Trains the jobs, and returns why each failed, or an empty string; see `launching.run_all`."""
    raise NotImplementedError
