"""The standard tables of the lecture, made from tracked runs."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from aelab.metrics import against
from aelab.results.compare import comparison, differences, grouped, key_of, labels, value_of

if TYPE_CHECKING:
    import pandas as pd

    from aelab.tracking import RunInfo

EARLY_STEPS = 100
DENSITIES = ("exact", "bound", "AIS", "none")
Curve = Callable[["RunInfo", str], list[tuple[int, float]]]  # run and metric -> its points (step, value)


def latent_table(runs: "Sequence[RunInfo]", curve: Curve) -> "pd.DataFrame":
    """The test error of reconstructions by code size, beside that of the PCA of equal size; means over seeds."""
    import pandas as pd

    chosen = [run for run in runs if "test/sse" in run.metrics and "latent_dim" in run.params]
    if not chosen:
        return pd.DataFrame()
    by = ["recipe", *(name for name in differences(chosen) if name not in ("seed", "latent_dim")), "latent_dim"]
    table = grouped(chosen, by, ["test/mse", "test/sse", "test/psnr", "test/pca_sse"])
    return table.drop(columns=["test/pca_sse sd"], errors="ignore")


def noise_table(runs: "Sequence[RunInfo]", curve: Curve) -> "pd.DataFrame":
    """The PSNR of denoised test images by noise level: that of the training, and others that were evaluated.

    There is one column per evaluated run, and beside it the best linear filter and the noisy images themselves.
    """
    import pandas as pd

    cells: dict[float, dict[str, object]] = {}
    chosen = [run for run in runs if any(metric.endswith("denoised_psnr") for metric in run.metrics)]
    named = labels(comparison(chosen)) if chosen else []
    for label, run in zip(named, chosen, strict=True):
        for metric, value in run.metrics.items():
            parts = metric.split("/")
            if parts[0] != "test" or not parts[-1].endswith("denoised_psnr") or len(parts) > 3:
                continue
            level = run.params.get("level") if len(parts) == 2 else parts[1].removeprefix("level-")
            number = value_of(level)
            if isinstance(number, (int, float)):
                of = {"": "", "linear": " linear filter", "nothing": " left alone"}.get(against(metric)[0])
                if of is not None:
                    cells.setdefault(float(number), {})[label + of] = value
    return pd.DataFrame([{"level": level, **row} for level, row in sorted(cells.items())])


def losses_table(runs: "Sequence[RunInfo]", curve: Curve) -> "pd.DataFrame":
    """The generator's losses: mean and smallest gradient norm over the first EARLY_STEPS steps, and metrics of the samples."""
    import pandas as pd

    rows = []
    chosen = [run for run in runs if "loss" in run.params]
    for run in chosen:
        early = [value for step, value in curve(run, "step/g_grad_norm") if step <= EARLY_STEPS]
        if early:
            shown = ["loss", *(key for key in differences(chosen) if key != "loss")]
            row = {"run": run.name, **{key: key_of(run, key) for key in shown}}
            row |= {"mean g_grad_norm": sum(early) / len(early), "least g_grad_norm": min(early)}
            names = ("test/d_fake", "test/class_distance", "test/fd_lenet", "test/coverage_lenet")
            rows.append(row | {name: run.metrics.get(name) for name in names})
    return pd.DataFrame(rows)


def models_table(runs: "Sequence[RunInfo]", curve: Curve) -> "pd.DataFrame":
    """The newest evaluated run of each recipe, all on the data of the newest of them, with the main metrics of each task.

    Code sizes differ between recipes, so the error of the PCA of equal size is beside the error of reconstructions.
    """
    import pandas as pd

    evaluated = [run for run in _newest_first(runs) if "test/loss" in run.metrics]
    newest: dict[str, RunInfo] = {}
    for run in evaluated:
        if run.tags.get("aelab.data_fingerprint") == evaluated[0].tags.get("aelab.data_fingerprint"):
            newest.setdefault(run.recipe, run)
    names = (
        "test/sse",
        "test/pca_sse",
        "test/ssim",
        "test/recon_sharpness",
        "test/marginal_nll",
        "test/fd_lenet",
        "test/coverage_lenet",
        "test/sharpness",
        "test/knn_accuracy",
        "test/probe_accuracy",
        "test/error",
    )
    rows = [
        {
            "recipe": run.recipe,
            "run": run.name,
            "latent_dim": key_of(run, "latent_dim"),
            **{name: run.metrics.get(name) for name in names},
            "seconds": run.seconds,
        }
        for run in newest.values()
    ]
    return pd.DataFrame(rows).astype(object)


def taxonomy_table(runs: "Sequence[RunInfo]", curve: Curve) -> "pd.DataFrame":
    """Generative models by the density that they have, after Goodfellow 2016, figure 9; all on the data of the newest run.

    There is one row per recipe and set of options, of its newest evaluated run, and one for real images. `density` says how
    test/marginal_nll was obtained: exact, an upper bound of it (bound), estimated by annealed importance sampling (AIS), or none.
    """
    import pandas as pd

    generative = {"test/marginal_nll", "test/fd_lenet", "test/sharpness"}
    evaluated = [run for run in _newest_first(runs) if generative & run.metrics.keys()]
    newest: dict[object, RunInfo] = {}
    for run in evaluated:
        if run.tags.get("aelab.data_fingerprint") == evaluated[0].tags.get("aelab.data_fingerprint"):
            options = frozenset(item for item in run.params.items() if item[0] != "seed")
            newest.setdefault((run.recipe, options), run)
    chosen = sorted(newest.values(), key=lambda run: DENSITIES.index(_density(run)))
    shown = [name for name in differences(chosen) if name != "seed"] if chosen else []
    sampled = ("fd_lenet", "coverage_lenet", "unsure")
    rows: list[dict[str, object]] = [
        {
            "recipe": run.recipe,
            "run": run.name,
            **{name: key_of(run, name) for name in shown},
            "density": _density(run),
            "pixels": run.tags.get("aelab.likelihood"),
            "test/marginal_nll": run.metrics.get("test/marginal_nll"),
            "test/marginal_nll_se": run.metrics.get("test/marginal_nll_se"),
            **{f"test/{name}": run.metrics.get(f"test/{name}") for name in sampled},
            "test/sample_seconds": run.metrics.get("test/sample_seconds"),
            "seconds": run.seconds,
        }
        for run in chosen
    ]
    for run in chosen:
        if "test/real_fd_lenet" in run.metrics:
            real = {f"test/{name}": run.metrics.get(f"test/real_{name}") for name in sampled}
            rows.append({"recipe": "real images", "run": "", **real})
            break
    return pd.DataFrame(rows).astype(object)


def _newest_first(runs: "Sequence[RunInfo]") -> "list[RunInfo]":
    """The runs, the newest first, in whatever order they were typed."""
    return sorted(runs, key=lambda run: run.started or 0, reverse=True)


def _density(run: "RunInfo") -> str:
    """How the likelihood of a run was obtained, one of DENSITIES."""
    found = run.tags.get("aelab.marginal_nll", "bound")  # runs of earlier versions have no such tag
    return found if "test/marginal_nll" in run.metrics and found in DENSITIES else "none"


def labels_table(runs: "Sequence[RunInfo]", curve: Curve) -> "pd.DataFrame":
    """The classification error by number of labels: pretrained, from scratch, and their difference.

    There is one row for each number of labels and each combination of other options in which runs differ. A pair is two runs,
    one of each arm, with the same labels, so of one seed and one data set. All numbers of a row are means and standard
    deviations over its pairs; draws that only one arm has are counted as unpaired, and averaged only if there is no pair. The
    error is test/error if all runs have been evaluated, else val/error.
    """
    import pandas as pd

    chosen = [
        run
        for run in runs
        if "val/error" in run.metrics
        and run.params.get("finetune", "0") != "0"
        and {"seed", "pretrain"} <= run.params.keys()
        and isinstance(value_of(run.params.get("labels")), int)
    ]
    if not chosen:
        return pd.DataFrame()
    metric = "test/error" if all("test/error" in run.metrics for run in chosen) else "val/error"
    arms = ("pretrain", "start")
    by = ["labels", *(name for name in differences(chosen) if name not in ("labels", "seed", *arms))]
    frame = pd.DataFrame(
        [
            {
                **{name: key_of(run, name) for name in by},
                "labels": int(run.params["labels"]) or math.inf,  # 0 means all of them, which comes last
                "draw": (run.tags.get("aelab.data_fingerprint"), run.params["seed"]),
                "arm": "pretrained" if run.params["pretrain"] == "True" or "start" in run.params else "scratch",
                "error": run.metrics[metric],
            }
            for run in chosen
        ]
    )
    frame[by] = frame[by].astype(object).where(frame[by].notna(), "")
    errors = frame.pivot_table(index=[*by, "draw"], columns="arm", values="error", aggfunc="mean")
    errors = errors.reindex(columns=["pretrained", "scratch"])
    errors["difference"] = errors["pretrained"] - errors["scratch"]
    rows = []
    for key, group in errors.groupby(by):
        pairs = group.dropna()
        row: dict[str, object] = dict(zip(by, key, strict=True))
        row |= {"pairs": len(pairs), "unpaired": len(group) - len(pairs)}
        row["labels"] = "all" if row["labels"] == math.inf else int(float(str(row["labels"])))
        for name in errors:
            column = str(name) if name == "difference" else f"{name} {metric}"
            values = (group if pairs.empty else pairs)[name]
            row |= {column: values.mean(), f"{column} sd": values.std()}
        rows.append(row)
    return pd.DataFrame(rows)


TABLES = {
    "latent": latent_table,
    "labels": labels_table,
    "noise": noise_table,
    "losses": losses_table,
    "models": models_table,
    "taxonomy": taxonomy_table,
}
NOTHING_TO_SHOW = {  # the error if a table would have no rows
    "latent": ("none of these runs has been evaluated on reconstructions.", "Evaluate some: aelab eval RUN..."),
    "labels": ("none of these runs was trained with labels.", "Train some: aelab train pretrained --labels 100"),
    "noise": (
        "none of these runs has been evaluated on noisy images.",
        "Evaluate one: aelab eval denoising --set level=0.25",
    ),
    "losses": (
        "none of these runs has a generator's gradient norms.",
        "Train one: aelab train gan --loss minimax --noise 0",
    ),
    "models": ("none of these runs has been evaluated.", "Evaluate some: aelab eval RUN..."),
    "taxonomy": ("none of these runs has been evaluated as a generative model.", "Evaluate some: aelab eval RUN..."),
}
