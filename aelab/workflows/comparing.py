"""What is said and drawn of several runs: curves of a metric, contact sheets, and the best point of a sweep."""

import logging
import statistics
from pathlib import Path

from aelab.errors import UserError
from aelab.evaluation import eval_mode, reconstruct
from aelab.figures import contact_sheet, curves, save, sweep_figure
from aelab.metrics import number
from aelab.progress_bar import progress_bar
from aelab.recipe import Autoencodes, Generates
from aelab.results import best_runs, comparison, labels, markable, metric_of, sweep_values
from aelab.tracking import Store
from aelab.workflows.listing import Comparison, present_name, similar_metrics
from aelab.workflows.loading import configuration, open_run
from aelab.workflows.planning import command

log = logging.getLogger(__name__)

SHEET_IMAGES = 20  # test images on a contact sheet


def draw_sweep(comparison_: Comparison, out: Path) -> Path:
    """Writes the figure of a sweep: its metric against one option, or over two. Raises UserError if more options vary."""
    figure = sweep_figure(sweep_values(comparison_.runs, comparison_.varied, comparison_.metric), comparison_.metric)
    if figure is None:
        names = [name for name in comparison_.varied if name != "seed"]
        raise UserError(
            f"a figure shows one or two options; this sweep varies {', '.join(names) or 'the seed alone'}.",
            "A table of two of them: aelab compare SWEEP --rows NAME --columns NAME --metric NAME",
            code=2,
        )
    save(out, figure)
    return out


def best_of(comparison_: Comparison, store: Store) -> tuple[str, str]:
    """The best combination of a sweep's options in words, and the command that trains it again; empty if none is best.

    None is if its runs mean different things by the metric.
    """
    runs, metric = comparison_.runs, comparison_.metric
    if not markable(runs, [metric]):
        log.warning(f"{metric} cannot be compared between these points, so none is best; another: --metric")
        return "", ""
    best = best_runs(runs, comparison_.varied, metric)
    if not best:
        return "", ""
    if metric == "last/loss" and not best[0].tags.get("aelab.monitor"):
        log.info(f"{best[0].recipe} monitors no metric: its loss may not tell which point is better; another: --metric")
    values = [value for run in best if (value := metric_of(run, comparison_.metric)) is not None]
    config, recipe_file = configuration(best[0], store)
    options = {name: best[0].params.get(name, "none") for name in comparison_.varied if name != "seed"}
    which = ", ".join(f"{name} {value}" for name, value in options.items()) or best[0].recipe
    spread = f" ± {statistics.stdev(values):.2g} over {len(values)} seeds" if len(values) > 1 else ""
    return f"{which}: {comparison_.metric} {number(statistics.fmean(values))}{spread}", command(config, recipe_file)


def draw_curve(comparison_: Comparison, metric: str, out: Path | None, store: Store) -> Path:
    """Writes the curves of a metric over training, one per run, to a file, and returns its path.

    The default is compare-METRIC.png. Runs without the metric are left out. Raises UserError if no run has it.
    """
    metric = present_name(metric, comparison_.runs)
    target = out or Path(f"compare-{metric.replace('/', '-')}.png")
    chosen = comparison_.runs
    named = zip(labels(comparison(chosen)), chosen, strict=True)
    lines = {label: points for label, info in named if (points := store.curve(info, metric))}
    if not lines:
        raise UserError(f"none of these runs has a metric '{metric}'.", similar_metrics(chosen, metric), code=2)
    if without := len(chosen) - len(lines):
        log.warning(f"{without} run{'s' * (without > 1)} without {metric} left out of the curves")
    save(target, curves(lines, metric))
    return target


def draw_sheets(
    comparison_: Comparison, folder: Path, store: Store, *, seed: int, data_dir: Path | None, device: str
) -> list[Path]:
    """Writes contact sheets into a folder: the same test images reconstructed by each run, and samples of each run.

    Runs that cannot reconstruct or sample are left out. Raises UserError if the runs were trained on different data.
    """
    chosen = comparison_.runs
    if len({info.tags.get("aelab.data_fingerprint") for info in chosen}) > 1:
        raise UserError("these runs were trained on different data, so they have no test images in common.", code=2)
    images, samples, truth = {}, {}, None
    with progress_bar("images of the runs", len(chosen)) as bar:
        for label, info in zip(labels(comparison(chosen)), chosen, strict=True):
            run = open_run(info, store, device, data_dir)
            if isinstance(run.recipe, Autoencodes):
                if truth is None:
                    truth = run.data().test.showcase(SHEET_IMAGES)
                images[label] = reconstruct(run.recipe, truth)
            if isinstance(run.recipe, Generates):
                with eval_mode(run.recipe, seed):
                    samples[label] = run.recipe.decode(run.recipe.sample_prior(SHEET_IMAGES)).cpu()
            bar.advance(1)
    written = []
    if truth is not None:
        sheet = contact_sheet({**images, "ground truth": truth}, "the same test images through each run")
        save(target := folder / "reconstructions.png", sheet)
        written.append(target)
    if samples:
        save(target := folder / "samples.png", contact_sheet(samples, f"samples, seed {seed}"))
        written.append(target)
    return written
