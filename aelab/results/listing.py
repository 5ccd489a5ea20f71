"""The list of tracked runs, as `aelab runs` shows it."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from aelab.metrics import definition, duration, group, in_sections, number

if TYPE_CHECKING:
    from aelab.tracking import RunInfo

LISTING_COLUMNS = (  # of `listing_row`
    *("id", "name", "recipe", "status", "data", "started", "seconds", "loss"),
    *("main_metric", "main_value", "diagnosis"),
)
LEAST_IMPORTANT = (
    "data",
    "time",
    "recipe",
    "started",
    "diagnosis",
)  # the first is left out first where there is no room
SAME = 1e-6  # relative: a loss and its term are computed in float32


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
    """One row of the list in full; `loss` is the validation loss of the kept weights."""
    main, value = main_metric(run)
    return {
        "id": run.id[:8],
        "name": ("  " if run.parent else "") + run.name,
        "recipe": run.recipe,
        "status": run.status.lower(),
        "data": run.tags.get("aelab.data", ""),
        "started": "" if run.started is None else datetime.fromtimestamp(run.started).isoformat(" ", "minutes"),
        "seconds": run.seconds,
        "loss": run.validation.get("loss"),
        "main_metric": main,
        "main_value": value,
        "diagnosis": run.tags.get("aelab.diagnostics"),
    }


def shown_row(run: "RunInfo") -> dict[str, object]:
    """One row of the list as a terminal shows it: durations in words, and the diagnosis by its first words."""
    row = listing_row(run)
    main = f"{row['main_metric']} {number(row['main_value'])}" if row["main_metric"] else ""
    shown = {name: row[name] for name in ("id", "name", "recipe", "status")}
    return {
        **shown,
        "main metric": main,
        "diagnosis": short_diagnosis(run),
        "data": row["data"],
        "started": row["started"],
        "time": duration(run.seconds),
    }


def short_diagnosis(run: "RunInfo") -> str:
    """The first words of a run's diagnosis, such as "posterior collapse"; "good" if nothing is wrong."""
    return run.tags.get("aelab.diagnostics", "").partition(":")[0]


def main_metric(run: "RunInfo") -> tuple[str | None, float | None]:
    """The validation metric of the kept weights that says most about a run, and its value: best/elbo, last/error.

    For a classifier that is its error, else what the recipe monitors. A loss goes by its own name where it has one: the
    metric that equals it, or is its negative as the ELBO of a VAE is.
    """
    values = run.validation
    monitored = run.tags.get("aelab.monitor", "loss")
    loss = values.get("loss", math.nan)
    own = (name for name, value in values.items() if math.isclose(abs(value), abs(loss), rel_tol=SAME))
    candidates = [
        "error",
        *([] if monitored == "loss" else [monitored]),
        *(name for name in own if name != "loss"),
        "loss",
    ]
    name = next((name for name in candidates if name in values), None)
    return (f"{run.kept}/{name}", values[name]) if name else (None, None)


def training_rows(run: "RunInfo") -> list[dict[str, object]]:
    """One row per metric of the training, by sections, with its last value in each split.

    The column of the kept weights is best or last; where it is last, it is that of val too. Without a finished epoch there
    is step only.
    """
    splits = ["train", *(["val"] if run.kept != "last" else []), *filter(None, [run.kept])]
    if not any(key.startswith(tuple(f"{split}/" for split in splits)) for key in run.metrics):
        splits = ["step"]
    names = dict.fromkeys(
        rest for split in splits for key in run.metrics if (rest := key.removeprefix(f"{split}/")) != key
    )
    rows: list[dict[str, object]] = []
    for name in in_sections(names):
        known = definition(name)
        row: dict[str, object] = {"metric": name, "better": known.better if known else ""}
        row |= {split: run.metrics.get(f"{split}/{name}") for split in splits}
        rows.append({**row, "unit": known.unit if known else "", "section": group(name)})
    return rows
