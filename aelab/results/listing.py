"""The list of tracked runs, as `aelab runs` shows it."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aelab.tracking import RunInfo

LISTING_COLUMNS = ("id", "name", "recipe", "status", "data", "started", "seconds", "loss")  # of `listing_row`
LISTING_HEADINGS = {"loss": "validation loss"}  # in the terminal; JSON has the names of `listing_row`


def listing_order(runs: "Sequence[RunInfo]") -> "list[RunInfo]":
    """Each run once, newest first; the runs of a sweep follow their parent in the order in which they started.

    A store may hold anything: a run whose parent is the run itself, or has a parent of its own, is listed as if it had none.
    """
    known = {run.id: run for run in runs}
    first = {run.id for run in runs if run.parent not in known}
    children: dict[str | None, list[RunInfo]] = {}
    for run in runs:
        children.setdefault(run.parent if run.parent in first else None, []).append(run)
    return [each for run in children.get(None, []) for each in (run, *reversed(children.get(run.id, [])))]


def listing_row(run: "RunInfo") -> dict[str, object]:
    """One row of the list; `loss` is the validation loss of the kept weights."""
    return {
        "id": run.id[:8],
        "name": ("  " if run.parent else "") + run.name,
        "recipe": run.recipe,
        "status": run.status.lower(),
        "data": run.tags.get("aelab.data", ""),
        "started": "" if run.started is None else datetime.fromtimestamp(run.started).isoformat(" ", "minutes"),
        "seconds": run.seconds,
        "loss": run.validation.get("loss"),
    }
