"""Trains the points of a sweep as a job array of Slurm, through submitit."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from aelab.errors import UserError
from aelab.tracking import Store
from aelab.workflows.launching import Job


def check(options: Mapping[str, str]) -> None:
    """Raises UserError if no job can be submitted with these options."""
    raise UserError("--launcher slurm: Slurm is not on this machine.", code=2)


def run_all(
    jobs: Sequence[Job], at_once: int, store: Store, data_dir: Path | None, options: Mapping[str, str]
) -> list[str]:
    """Trains the jobs, and returns why each failed, or an empty string; see `launching.run_all`."""
    raise NotImplementedError
