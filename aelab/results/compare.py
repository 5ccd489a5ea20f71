"""Runs side by side, as tables (pandas): which rows and columns there are, and the standard tables by name."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

import pandas as pd

from aelab.errors import UserError
from aelab.metrics import EXTRACTORS, against, number
from aelab.tracking import RunInfo

PLUMBING = {
    "recipe", "seed", "device", "precision", "data", "image_size", "split_seed", "images_train", "images_val", "images_test",
    "epochs", "batch_size", "max_steps", "patience", "parameters",
}  # fmt: skip


def overview(runs: Sequence[RunInfo]) -> list[RunInfo]:
    """Runs newest first, those of a sweep behind their parent in the order in which they ran; each run once.

    A parent stands first itself: a run of its own, or of one that has a parent, is none of a sweep.
    """
    known = {run.id: run for run in runs}
    first = {run.id for run in runs if run.parent not in known}
    children: dict[str | None, list[RunInfo]] = {}
    for run in runs:
        children.setdefault(run.parent if run.parent in first else None, []).append(run)
    return [each for run in children.get(None, []) for each in (run, *reversed(children.get(run.id, [])))]


def row(run: RunInfo) -> dict[str, object]:
    """A run in a line, as `aelab runs` lists it."""
    return {
        "id": run.id[:8],
        "name": ("  " if run.parent else "") + run.name,
        "recipe": run.recipe,
        "status": run.status.lower(),
        "data": run.tags.get("aelab.data", ""),
        "started": "" if run.started is None else datetime.fromtimestamp(run.started).isoformat(" ", "minutes"),
        "seconds": run.seconds,
        "best/loss": run.metrics.get("best/loss"),
    }


TWINS = {
    "sse",
    "psnr",
    "denoised_mse",
    "denoised_sse",
    "recon_sharpness",
    "probe_accuracy",
    "kmeans_nmi",
    "intrinsic_dim",
    "nearest",
    "parzen",
    "inception_score",
    "classifier_error",
    "iwae_samples",
    "iwae_images",
    "g_loss",
    "kid",
    "precision",
    "recall",
    "density",
}  # say what others say, or little of the model; shown when asked for
OWN = ("loss", "nll", "elbo", "iwae_nll")  # of a recipe and its likelihood
RECONSTRUCTED = ("mse", "sse", "psnr", "ssim")  # a longer code has them better, whatever the model
JUDGED = (
    "classes",
    "class_distance",
    "inception_score_lenet",
    "classifier_error",
)  # by the classifier called "lenet"


def comparison(runs: Sequence[RunInfo], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """Runs as rows; as columns the options in which they differ and their figures.

    These are `metrics`, or the test's where all the runs have been evaluated, or else the validation's of the weights that are
    kept.
    """
    names = list(metrics) or _figures([run.metrics for run in runs])
    shown = differences(runs)
    rows = []
    for run in runs:
        row: dict[str, object] = {"run": run.name, "recipe": run.recipe}
        row |= {name: key_of(run, name) for name in shown}
        row |= {name: run.metrics.get(name) for name in names}
        count = value_of(run.params.get("parameters"))
        row["parameters"] = count if isinstance(count, int) else None
        row["seconds"] = run.seconds
        rows.append(row)
    return pd.DataFrame(rows).astype(object)


def differences(runs: Sequence[RunInfo]) -> list[str]:
    """The options in which runs of one recipe differ, and of the settings latent_dim, seed, data and epochs.

    "source" is among them where runs of one recipe were trained by different versions of its page.
    """
    frame = pd.DataFrame([{**run.params, "source": key_of(run, "source")} for run in runs])
    within = frame.groupby([run.recipe for run in runs]).nunique(dropna=False).max()
    options = [str(name) for name, count in within.items() if count > 1 and name not in PLUMBING]
    common = [name for name in ("latent_dim", "seed", "data", "epochs") if name in frame and name not in options]
    return [*options, *(name for name in common if frame[name].nunique(dropna=False) > 1)]


def grouped(runs: Sequence[RunInfo], by: Sequence[str], metrics: Sequence[str] = ()) -> pd.DataFrame:
    """One row a group of runs that agree in all of `by`: how many, and mean and standard deviation of each figure.

    Raises UserError for an option that no run has.
    """
    names = list(metrics) or _figures([run.metrics for run in runs])
    rows = [
        {
            **{key: key_of(run, key) for key in by},
            **{name: run.metrics.get(name) for name in names},
            "seconds": run.seconds,
        }
        for run in runs
    ]
    for key in by:
        if all(row[key] is None for row in rows):
            known = sorted({"recipe", *(name for run in runs for name in run.params)})
            raise UserError(f"no run has an option '{key}'.", f"There are: {', '.join(known)}", code=2)
    rows.sort(key=lambda row: [_order(row[key]) for key in by])
    frame = pd.DataFrame(rows).astype(dict.fromkeys([*names, "seconds"], float))
    groups = frame.groupby(list(by), dropna=False, sort=False)
    table = pd.DataFrame({"runs": groups.size()})
    for name in (*names, "seconds"):
        table[name] = groups[name].mean()
        if groups.size().max() > 1 and name != "seconds":
            table[f"{name} sd"] = groups[name].std()
    return table.reset_index()


def pivot(runs: Sequence[RunInfo], rows: str, columns: str, metric: str) -> pd.DataFrame:
    """One row a value of the option `rows`, one column a value of `columns`, in the cells mean and deviation of one metric."""
    long = grouped(runs, [rows, columns], [metric])
    wide: dict[object, dict[str, object]] = {}
    for record in long.to_dict("records"):
        row = wide.setdefault(record[rows], {rows: record[rows]})
        name = f"{columns} {record[columns]}"
        row[name] = record[metric]
        if f"{metric} sd" in record:
            row[f"{name} sd"] = record[f"{metric} sd"]
    return pd.DataFrame(list(wide.values()))


def mixed(runs: Sequence[RunInfo], by: Sequence[str]) -> list[str]:
    """The options, other than the seed, in which runs differ that `by` puts into one group: what a mean would hide."""
    groups: dict[tuple[object, ...], list[RunInfo]] = {}
    for run in runs:
        groups.setdefault(tuple(key_of(run, key) for key in by), []).append(run)
    found = {name: None for group in groups.values() for name in differences(group)}
    return [name for name in found if name != "seed" and name not in by]


def key_of(run: RunInfo, key: str) -> object:
    """An option of a run, its recipe, or the first digits of its page's SHA-256 as "source"."""
    named = {"recipe": run.recipe, "source": run.tags.get("aelab.recipe_sha256", "")[:8] or None}
    return named[key] if key in named else value_of(run.params.get(key))


def _order(value: object) -> tuple[bool, bool, object]:
    """A sort key for options: figures by size, then names by the alphabet, then nothing."""
    return (value is None, isinstance(value, str), 0 if value is None else value)


def comparable(runs: Sequence[RunInfo], names: Sequence[str], asked: bool) -> tuple[list[str], str]:
    """Those of the metrics `names` that can stand side by side, and why the others cannot.

    Distances of samples can only be compared where one extractor's weights made them, with as many samples. Raises UserError
    instead where they were asked for.
    """
    kept, reason = list(names), ""
    for extractor in EXTRACTORS:
        ours = [name for name in names if _extractor(name) == extractor]
        having = [run for run in runs if any(name in run.metrics for name in ours)]
        made = {(run.tags.get(f"aelab.{extractor}_sha256"), run.tags.get("aelab.compared_samples")) for run in having}
        if len(made) > 1:
            reason = f"samples of these runs were judged by different weights of {extractor}, or with other numbers of images"
            kept = [name for name in kept if name not in ours]
    if reason and asked:
        raise UserError(
            f"{reason}:", "their distances cannot stand side by side. Compare runs of one data set.", code=2
        )
    return kept, reason


def markable(runs: Sequence[RunInfo], names: Sequence[str]) -> list[str]:
    """Those of the columns `names` in which one value is better than another.

    They are figures of one data set and of one likelihood: a loss and a likelihood are another thing for another recipe, and for
    a density of grey values than for zeros and ones. Errors of reconstructions must also be of one code size. Of baselines none
    is better.
    """
    if len({run.tags.get("aelab.data_fingerprint") for run in runs}) > 1:
        return []
    found = []
    for name in names:
        having = [run for run in runs if name in run.metrics]
        kinds = {(run.recipe, run.params.get("likelihood"), run.params.get("variational")) for run in having}
        sizes = {run.params.get("latent_dim") for run in having}
        short = name.rsplit("/", 1)[-1]
        unlike = (short in OWN and len(kinds) > 1) or (short in RECONSTRUCTED and len(sizes) > 1)
        if name != "seconds" and not against(name)[0] and not unlike:
            found.append(name)
    return found


def _extractor(metric: str) -> str:
    """Whose features or classes a metric was made with, or nothing."""
    name = against(metric)[1].rsplit("/", 1)[-1]
    return "lenet" if name in JUDGED else next((known for known in EXTRACTORS if name.endswith(f"_{known}")), "")


def labels(frame: pd.DataFrame) -> list[str]:
    """A name for each row of a comparison: the run's, with the options in which the runs differ."""
    between = list(frame.columns[2 : list(frame.columns).index("parameters")])
    options = [name for name in between if "/" not in name]
    return [
        " ".join([row["run"], *(f"{name}={number(row[name])}" for name in options if not pd.isna(row[name]))])
        for row in frame.to_dict("records")
    ]


def _figures(of_runs: Sequence[Mapping[str, float]]) -> list[str]:
    """The names of the figures that tell the most, all of one split so that they can be compared."""
    split = "test/" if all("test/loss" in metrics for metrics in of_runs) else "best/"
    names = dict.fromkeys(name for metrics in of_runs for name in metrics if name.startswith(split))
    return [
        name for name in names
        if (short := name.removeprefix(split)).removesuffix(f"_{_extractor(name)}") not in TWINS and "/" not in short
        and not against(name)[0] and not short.endswith("_se")
    ]  # fmt: skip


def value_of(text: str | None) -> object:
    """A parameter as the number that it is; MLflow keeps them as text."""
    for kind in (int, float):
        with suppress(TypeError, ValueError):
            return kind(text)  # type: ignore[arg-type]
    return text
