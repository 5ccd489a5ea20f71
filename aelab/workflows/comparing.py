"""Pictures that compare runs: curves of a metric, and contact sheets."""

import logging
from pathlib import Path

from aelab.errors import UserError
from aelab.evaluation import eval_mode, reconstruct
from aelab.figures import contact_sheet, curves, save
from aelab.progress_bar import progress_bar
from aelab.recipe import Autoencodes, Generates
from aelab.results import comparison, labels
from aelab.tracking import Store
from aelab.workflows.listing import Comparison, present_name, similar_metrics
from aelab.workflows.loading import open_run

log = logging.getLogger(__name__)

SHEET_IMAGES = 20  # test images on a contact sheet


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
