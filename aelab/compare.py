"""Runs side by side: tables (pandas), curves and contact sheets of what is tracked."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import pandas as pd

from aelab.console import number
from aelab.tracking import RunInfo

PLUMBING = {
    "recipe", "seed", "device", "precision", "data", "image_size", "split_seed", "images_train", "images_val", "images_test",
    "epochs", "batch_size", "max_steps", "patience", "parameters",
}  # fmt: skip


def overview(runs: Sequence[RunInfo]) -> list[RunInfo]:
    """Runs newest first, those of a sweep behind their parent in the order in which they ran."""
    known = {run.id for run in runs}
    children: dict[str | None, list[RunInfo]] = {}
    for run in runs:
        children.setdefault(run.parent if run.parent in known else None, []).append(run)
    return [each for run in children.get(None, []) for each in (run, *reversed(children.get(run.id, [])))]


def row(run: RunInfo) -> dict[str, object]:
    """A run in a line, as `aelab runs` lists it."""
    return {
        "id": run.id[:8],
        "name": ("  " if run.parent else "") + run.name,
        "recipe": run.recipe,
        "status": run.status.lower(),
        "data": run.tags.get("aelab.data", ""),
        "started": datetime.fromtimestamp(run.started).isoformat(" ", "minutes"),
        "seconds": run.seconds,
        "val/loss": run.metrics.get("val/loss"),
    }


TWINS = (
    "sse",
    "psnr",
    "pca_loss",
    "pca_sse",
    "pca_psnr",
    "judge_error",
)  # say what others say, or nothing of the model


def comparison(runs: Sequence[RunInfo], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Runs as rows; as columns the options in which they differ and their figures.

    These are `metrics`, or the test's where all the runs have been evaluated, or else the validation's.
    """
    params = pd.DataFrame([run.params for run in runs])
    options = [str(name) for name in params if name not in PLUMBING]
    shown = [
        name
        for name in (*options, "seed", "data", "epochs")
        if name in params and params[name].nunique(dropna=False) > 1
    ]
    names = list(metrics) or _figures([run.metrics for run in runs])
    rows = []
    for run in runs:
        row: dict[str, object] = {"run": run.name, "recipe": run.recipe}
        row |= {name: _value(run.params.get(name)) for name in shown}
        row |= {name: run.metrics.get(name) for name in names}
        row["parameters"] = int(run.params["parameters"]) if "parameters" in run.params else None
        row["seconds"] = run.seconds
        rows.append(row)
    return pd.DataFrame(rows).astype(object)


def labels(frame: pd.DataFrame) -> list[str]:
    """A name for each row of a comparison: the run's, with the options in which the runs differ."""
    between = list(frame.columns[2 : list(frame.columns).index("parameters")])
    options = [name for name in between if "/" not in name]
    return [" ".join([row["run"], *(f"{name}={row[name]}" for name in options)]) for row in frame.to_dict("records")]


def _figures(of_runs: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of the figures that tell the most, all of one split so that they can be compared."""
    split = "test/" if all("test/loss" in metrics for metrics in of_runs) else "val/"
    names = dict.fromkeys(name for metrics in of_runs for name in metrics if name.startswith(split))
    return [name for name in names if (short := name.removeprefix(split)) not in TWINS and "/" not in short]


def _value(text: str | None) -> object:
    """A parameter as the number that it is; MLflow keeps them as text."""
    for kind in (int, float):
        with suppress(TypeError, ValueError):
            return kind(text)  # type: ignore[arg-type]
    return text


def labels_table(runs: Sequence[RunInfo]) -> pd.DataFrame:
    """Classification error against the number of labels: pretrained, from scratch, and their difference.

    One row a number of labels, 0 meaning all; mean and standard deviation over seeds (draws of the labels). The difference is
    paired: of the runs with the same seed. The error is test/error where all the runs have been evaluated, else val/error.
    """
    chosen = [run for run in runs if "val/error" in run.metrics and run.params.get("finetune", "0") != "0"]
    metric = "test/error" if all("test/error" in run.metrics for run in chosen) else "val/error"
    frame = pd.DataFrame(
        [
            {
                "labels": int(run.params["labels"]),
                "seed": run.params["seed"],
                "arm": "pretrained" if run.params["pretrain"] == "True" or "start" in run.params else "scratch",
                "error": run.metrics[metric],
            }
            for run in chosen
        ],
        columns=["labels", "seed", "arm", "error"],
    )
    errors = frame.pivot_table(index=["labels", "seed"], columns="arm", values="error", aggfunc="mean")
    errors = errors.reindex(columns=["pretrained", "scratch"])
    errors["difference"] = errors["pretrained"] - errors["scratch"]
    rows = []
    for labels, group in errors.groupby("labels"):
        row: dict[str, object] = {"labels": labels or "all", "draws": len(group)}
        for name in errors:
            row |= {
                f"{name} {metric}" if name != "difference" else name: group[name].mean(),
                f"{name} sd": group[name].std(),
            }
        rows.append(row)
    return pd.DataFrame(rows)


def markdown(frame: pd.DataFrame) -> str:
    """A table in Markdown, figures in four significant digits."""
    lines = [
        list(frame.columns),
        ["---:"] * len(frame.columns),
        *([number(v) for v in row.values()] for row in records(frame)),
    ]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def latex(frame: pd.DataFrame) -> str:
    """A table in LaTeX for the booktabs package, figures in four significant digits."""
    rows = [{name: number(value) for name, value in row.items()} for row in records(frame)]
    return str(
        pd.DataFrame(rows, columns=frame.columns).to_latex(index=False, escape=True, column_format="r" * frame.shape[1])
    )


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """The rows of a table as plain dictionaries, None where there is nothing."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]
