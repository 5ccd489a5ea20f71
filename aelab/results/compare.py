"""Tables (pandas) of runs side by side: their rows and columns, and which values may be compared."""

import statistics
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from aelab.errors import UserError
from aelab.metrics import EXTRACTORS, against, definition, number

if TYPE_CHECKING:
    import pandas as pd

    from aelab.tracking import RunInfo

TRAINING_SETTINGS = {  # not options of a model; `differences` includes some of them
    "recipe",
    "seed",
    "device",
    "precision",
    "data",
    "image_size",
    "split_seed",
    "images_train",
    "images_val",
    "images_test",
    "epochs",
    "batch_size",
    "max_steps",
    "patience",
    "parameters",
}
SHOWN_ON_REQUEST = {  # metrics that follow from others, or say little about the model
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
    "marginal_nll_images",
    "g_loss",
    "kid",
    "class_nll",
    "ais_effective",
    "sample_seconds",
    "precision",
    "recall",
    "density",
}
RECIPE_SPECIFIC = ("loss", "nll", "elbo", "marginal_nll")  # their meaning depends on recipe and likelihood
BETTER_WITH_LONGER_CODES = ("mse", "sse", "psnr", "ssim")  # for every model
BY_THE_CLASSIFIER = (  # "lenet"
    *("classes", "class_distance", "unsure", "inception_score_lenet", "classifier_error", "class_accuracy"),
)
EITHER = "best or last/"  # the split of a column for runs of which some keep the best weights and some the last


def comparison(runs: "Sequence[RunInfo]", metrics: Sequence[str] = ()) -> "pd.DataFrame":
    """One row per run; the columns are the options in which the runs differ, and metrics.

    Without `metrics`, they are the first of `default_metrics`.
    """
    import pandas as pd

    names = list(metrics) or default_metrics(runs)[0]
    shown = differences(runs)
    rows = []
    for run in runs:
        row: dict[str, object] = {"run": run.name, "recipe": run.recipe}
        row |= {name: key_of(run, name) for name in shown}
        row |= {name: metric_of(run, name) for name in names}
        count = value_of(run.params.get("parameters"))
        row["parameters"] = count if isinstance(count, int) else None
        row["seconds"] = run.seconds
        rows.append(row)
    return pd.DataFrame(rows).astype(object)


def differences(runs: "Sequence[RunInfo]") -> list[str]:
    """The options in which runs of one recipe differ.

    Of latent_dim, seed, data, epochs and max_steps those in which any runs differ are among them.

    "source" is among them if runs of one recipe were trained with different versions of its file.
    """
    import pandas as pd

    frame = pd.DataFrame([{**run.params, "source": key_of(run, "source")} for run in runs])
    within = frame.groupby([run.recipe for run in runs]).nunique(dropna=False).max()
    options = [str(name) for name, count in within.items() if count > 1 and name not in TRAINING_SETTINGS]
    common = [
        name for name in ("latent_dim", "seed", "data", "epochs", "max_steps") if name in frame and name not in options
    ]
    return [*options, *(name for name in common if frame[name].nunique(dropna=False) > 1)]


def grouped(runs: "Sequence[RunInfo]", by: Sequence[str], metrics: Sequence[str] = ()) -> "pd.DataFrame":
    """One row per group of runs that agree in all options `by`: their number, and mean and standard deviation of each metric.

    Raises UserError for an option that no run has.
    """
    import pandas as pd

    names = list(metrics) or default_metrics(runs)[0]
    rows = [
        {
            **{key: key_of(run, key) for key in by},
            **{name: metric_of(run, name) for name in names},
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


def pivot(runs: "Sequence[RunInfo]", rows: str, columns: str, metric: str) -> "pd.DataFrame":
    """One row for each value of the option `rows`, one column for each value of `columns`; the cells hold one metric.

    A cell is the mean over runs; a column "NAME sd" beside it holds the standard deviation.
    """
    import pandas as pd

    long = grouped(runs, [rows, columns], [metric])
    wide: dict[object, dict[str, object]] = {}
    for record in long.to_dict("records"):
        row = wide.setdefault(record[rows], {rows: record[rows]})
        name = f"{columns} {record[columns]}"
        row[name] = record[metric]
        if f"{metric} sd" in record:
            row[f"{name} sd"] = record[f"{metric} sd"]
    return pd.DataFrame(list(wide.values()))


def sweep_metric(runs: "Sequence[RunInfo]", asked: str | None = None) -> str:
    """The metric that a sweep is ranked by: the one that was asked for, else the monitored one of the kept weights.

    It is one of the validation images, as options are not chosen by test images.
    """
    if asked:
        return asked
    monitored = [f"best/{run.tags['aelab.monitor']}" for run in runs if run.tags.get("aelab.monitor")]
    kept = [name for name in monitored if all(name in run.metrics for run in runs)]
    last = [name for run in runs for name in run.metrics if name.startswith("last/")]
    return next(iter([*kept, *last, *default_metrics(runs)[0]]), "")


def sweep_table(runs: "Sequence[RunInfo]", varied: Sequence[str], metric: str) -> "pd.DataFrame":
    """The runs of a sweep, averaged over the seed: what varies, the metric that it is ranked by, and the default ones."""
    some = [name for name in varied if name != "seed" and any(key_of(run, name) is not None for run in runs)]
    by = some or ["recipe"]
    every = [metric, *default_metrics(runs)[0]] if metric else default_metrics(runs)[0]
    return grouped(runs, by, [name for name in dict.fromkeys(every) if any(name in run.metrics for run in runs)])


def sweep_values(
    runs: "Sequence[RunInfo]", varied: Sequence[str], metric: str
) -> "list[tuple[dict[str, object], float]]":
    """For each run that has the metric: the values of what varies, but for the seed, and the metric."""
    names = [name for name in varied if name != "seed"]
    return [
        ({name: key_of(run, name) for name in names}, value)
        for run in runs
        if (value := metric_of(run, metric)) is not None
    ]


def direction(metric: str) -> str:
    """Which values of a metric are better, "lower" or "higher"; empty if it is not defined. A loss is what training minimises."""
    known = definition(metric)
    return "lower" if metric.rpartition("/")[2] == "loss" else known.better if known else ""


def best_runs(runs: "Sequence[RunInfo]", varied: Sequence[str], metric: str) -> "list[RunInfo]":
    """The runs of the combination of options with the best mean of a metric.

    None if the metric has no better direction, or if all of several combinations are equally good.
    """
    better = direction(metric)
    if not better:
        return []
    groups: dict[tuple[object, ...], list[RunInfo]] = {}
    for run in runs:
        if metric_of(run, metric) is not None:
            groups.setdefault(tuple(key_of(run, name) for name in varied if name != "seed"), []).append(run)
    means = {key: statistics.fmean(metric_of(run, metric) or 0.0 for run in group) for key, group in groups.items()}
    if not means or (len(means) > 1 and len(set(means.values())) == 1):
        return []
    return groups[(min if better == "lower" else max)(means, key=lambda key: means[key])]


def mixed(runs: "Sequence[RunInfo]", by: Sequence[str]) -> list[str]:
    """The options, other than the seed, in which runs of one group differ, so that their mean hides a difference."""
    groups: dict[tuple[object, ...], list[RunInfo]] = {}
    for run in runs:
        groups.setdefault(tuple(key_of(run, key) for key in by), []).append(run)
    found = {name: None for group in groups.values() for name in differences(group)}
    return [name for name in found if name != "seed" and name not in by]


def key_of(run: "RunInfo", key: str) -> object:
    """An option of a run, its recipe, or for "source" the first digits of the SHA-256 of its recipe file."""
    named = {"recipe": run.recipe, "source": run.tags.get("aelab.recipe_sha256", "")[:8] or None}
    return named[key] if key in named else value_of(run.params.get(key))


def _order(value: object) -> tuple[bool, bool, object]:
    """A sort key for options: numbers in order, then names in alphabetical order, then missing values."""
    return (value is None, isinstance(value, str), 0 if value is None else value)


def comparable(runs: "Sequence[RunInfo]", names: Sequence[str], asked: bool) -> tuple[list[str], str]:
    """The metrics among `names` that can be compared between the runs, and why the others cannot.

    Distances of samples can be compared only if they were computed with the same weights of the extractor and from equally
    many samples. Raises UserError instead if the metrics were `asked` for.
    """
    kept, reason = list(names), ""
    for extractor in EXTRACTORS:
        ours = [name for name in names if _extractor(name) == extractor]
        having = [run for run in runs if any(metric_of(run, name) is not None for name in ours)]
        made = {(run.tags.get(f"aelab.{extractor}_sha256"), run.tags.get("aelab.compared_samples")) for run in having}
        if len(made) > 1:
            reason = (
                f"the samples of these runs were measured by different weights of {extractor}, or in different numbers"
            )
            kept = [name for name in kept if name not in ours]
    if reason and asked:
        raise UserError(f"{reason}:", "their distances cannot be compared. Compare runs of one data set.", code=2)
    return kept, reason


def markable(runs: "Sequence[RunInfo]", names: Sequence[str]) -> list[str]:
    """The columns among `names` in which a best value may be marked.

    All runs must have been trained on the same data. A loss or a likelihood is compared only within one recipe and one kind
    of likelihood; an error of reconstructions only within one code size. A baseline is never marked.
    """
    if len({run.tags.get("aelab.data_fingerprint") for run in runs}) > 1:
        return []
    found = []
    for name in names:
        sizes = {run.params.get("latent_dim") for run in runs if metric_of(run, name) is not None}
        unlike_codes = name.rsplit("/", 1)[-1] in BETTER_WITH_LONGER_CODES and len(sizes) > 1
        unlike = unlike_codes or _differs_in_meaning(runs, name)
        if name != "seconds" and not against(name)[0] and not unlike:
            found.append(name)
    return found


def _extractor(metric: str) -> str:
    """The extractor whose features or classes a metric was computed with; empty if there is none."""
    name = against(metric)[1].rsplit("/", 1)[-1]
    return (
        "lenet"
        if name in BY_THE_CLASSIFIER
        else next((known for known in EXTRACTORS if name.endswith(f"_{known}")), "")
    )


def labels(frame: "pd.DataFrame") -> list[str]:
    """A label for each row of a comparison: the run's name, with the options in which the runs differ."""
    import pandas as pd

    between = list(frame.columns[2 : list(frame.columns).index("parameters")])
    options = [name for name in between if "/" not in name]
    return [
        " ".join([row["run"], *(f"{name}={number(row[name])}" for name in options if not pd.isna(row[name]))])
        for row in frame.to_dict("records")
    ]


def metric_of(run: "RunInfo", name: str) -> float | None:
    """A metric of a run by the name of its column: split/NAME, or "best or last/NAME" for the validation of its kept weights."""
    if name.startswith(EITHER):
        return run.validation.get(name.removeprefix(EITHER))
    return run.metrics.get(name)


def default_metrics(runs: "Sequence[RunInfo]") -> tuple[list[str], list[str]]:
    """The columns of a comparison where none are asked for, and those that are left out as each recipe means its own by them.

    They are the main metrics of the test images if all runs have been evaluated. Else they are the validation metrics of the
    kept weights: best/NAME, last/NAME or, if the runs that have it differ in that, "best or last/NAME".
    """
    if all("test/loss" in run.metrics for run in runs):
        found = [key for run in runs for key in run.metrics if key.startswith("test/")]
    else:
        found = [_validation_split(runs, name) + name for run in runs for name in run.validation]
    main = [name for name in dict.fromkeys(found) if _is_main(name.partition("/")[2])]
    own = [name for name in main if _differs_in_meaning(runs, name)]
    return [name for name in main if name not in own], own


def _is_main(name: str) -> bool:
    """Whether a metric, without its split, is shown where it is not asked for."""
    return (
        name.removesuffix(f"_{_extractor(name)}") not in SHOWN_ON_REQUEST
        and "/" not in name
        and not against(name)[0]
        and not name.endswith("_se")
    )


def _differs_in_meaning(runs: "Sequence[RunInfo]", name: str) -> bool:
    """Whether the runs that have this metric mean different things by it.

    A recipe's loss is its own, and a density of grey values is not a probability of binary pixels. The marginal likelihood of
    the same pixels is one and the same quantity for all recipes.
    """
    having = [run for run in runs if metric_of(run, name) is not None]
    pixels = {run.tags.get("aelab.likelihood") for run in having}
    if name.rsplit("/", 1)[-1] == "marginal_nll" and None not in pixels:
        return len(pixels) > 1
    own = ("likelihood", "variational", "conditional")
    kinds = {(run.recipe, *(run.params.get(option) for option in own)) for run in having}
    return name.rsplit("/", 1)[-1] in RECIPE_SPECIFIC and len(kinds) > 1


def _validation_split(runs: "Sequence[RunInfo]", name: str) -> str:
    """The split best/ if all runs with this metric keep their best weights, last/ if all keep their last ones, else EITHER."""
    having = [run for run in runs if name in run.validation]
    splits = {"best/" if any(key.startswith("best/") for key in run.metrics) else "last/" for run in having}
    return EITHER if len(splits) > 1 else splits.pop()


def value_of(text: str | None) -> object:
    """A parameter as a number where it is one; MLflow keeps parameters as text."""
    for kind in (int, float):
        with suppress(TypeError, ValueError):
            return kind(text)  # type: ignore[arg-type]
    return text
