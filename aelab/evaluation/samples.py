"""Samples of a model compared with test images, beside equally many training images and Gaussian ones."""

import functools
import logging
import time
from pathlib import Path

import torch
from torch import Tensor

from aelab.data import Dataset
from aelab.errors import UserError
from aelab.evaluation import generation
from aelab.evaluation.baselines import Rows, pixel_metrics, pixel_rows, pixel_work, references
from aelab.evaluation.classifier import MIN_SIDE, STEPS, Classifier, class_metrics, classifier_of, shares
from aelab.evaluation.conditional import of_classes
from aelab.evaluation.diagnostics import MIN_ACCURACY
from aelab.evaluation.generation import Extractor
from aelab.evaluation.loss import eval_mode
from aelab.evaluation.report import Report
from aelab.figures import bars, pairs
from aelab.progress_bar import Advance, Bar, progress_bar
from aelab.recipe import Conditional, Generates, Recipe

log = logging.getLogger(__name__)

BATCH = 250  # codes at once
TIMED = 64  # samples that are timed
IMAGES_PER_ROW = 8  # images in a row of a picture


def samples(
    report: Report,
    recipe: Generates,
    data: Dataset,
    extractor: Extractor | None = None,
    folder: Path | None = None,
) -> None:
    """Adds the metrics of samples to a report, beside those of equally many training images and Gaussian ones.

    Distances are between features of the data set's own classifier, if it has classes, and between those of `extractor`.
    Values that do not depend on the model are cached in `folder`, by default in the user's cache folder.
    """
    assert isinstance(recipe, Recipe)
    n = min(generation.MAX_IMAGES, len(data.test), len(data.train))
    drawn = _drawn(recipe, n)
    classifier = _classifier(data)
    extractors = [Extractor("lenet", classifier.sha256, classifier.net[0], data.train.device)] if classifier else []
    extractors += [extractor] if extractor else []
    work = pixel_work(data)
    with progress_bar("samples against test images", work) as bar:
        report.add(pixel_metrics(drawn, data, advance=bar.advance))
    with progress_bar("training and Gaussian images, once", 2 * work) as bar:
        _add(report, pixel_rows(data, n, folder, lambda: _once(data, n, "in pixels", bar)))
    for each in extractors:
        own = classifier if each.name == "lenet" else None
        with progress_bar(f"training and Gaussian images by {each.name}, once", 3 * n) as bar:
            begin = functools.partial(_once, data, n, f"by {each.name}", bar)
            real, rows = references(each, data, n, own, folder, begin)
        with progress_bar(f"samples against test images, by {each.name}", n) as bar:
            features = each(drawn, bar.advance)
            report.add(generation.distances(features, real, each.name))
        if own:
            logits = own.logits(features)
            report.add(class_metrics(logits))
            heights = dict(zip(data.classes, shares(logits).tolist(), strict=True))
            report.pictures["test-classes"] = bars(heights, "share of the samples")
            if isinstance(recipe, Conditional) and recipe.conditional:
                of_classes(report, recipe, data, own)
            if (error := rows[""]["classifier_error"]) > 100 * (1 - MIN_ACCURACY):
                report.notes.append(
                    f"the classifier of {data.name} is wrong for {error:.0f} % of the test images: what it says of samples, "
                    "fd_lenet and the like too, means little"
                )
        _add(report, rows)
        report.tags[f"aelab.{each.name}_sha256"] = each.sha256
    report.tags["aelab.compared_samples"] = str(n)
    report.notes.append(f"{n:,} samples, as many training images (real) and as many Gaussian ones")
    which = generation.nearest(drawn[: 2 * IMAGES_PER_ROW], data.train)[1]
    copies = data.train.batch(which.to(data.train.images.device))[0].cpu()
    report.pictures["test-nearest"] = pairs(drawn[: 2 * IMAGES_PER_ROW], copies, IMAGES_PER_ROW)


def _drawn(recipe: Generates, n: int) -> Tensor:
    """n samples (n, C, H, W) of a model, on the CPU. They are drawn in batches of fixed size, so the first do not depend on n."""
    assert isinstance(recipe, Recipe)
    parts: list[Tensor] = []
    with eval_mode(recipe), progress_bar("samples", n) as bar:
        for _ in range(0, n, BATCH):
            parts.append(recipe.decode(recipe.sample_prior(BATCH)).cpu())
            bar.advance(BATCH)
    return torch.cat(parts)[:n]


def sampling_seconds(recipe: Generates) -> float:
    """The wall time of drawing TIMED samples, the least of three times."""
    assert isinstance(recipe, Recipe)
    seconds = []
    with eval_mode(recipe):
        for _ in range(3):
            started = time.perf_counter()
            recipe.decode(recipe.sample_prior(TIMED)).cpu()
            seconds.append(time.perf_counter() - started)
    return min(seconds)


def _add(report: Report, rows: Rows) -> None:
    for of, metrics in rows.items():
        report.add(metrics, of)


def _once(data: Dataset, n: int, how: str, bar: Bar) -> Advance:
    """Logs that values are computed for the first time for a data set, and returns the `Advance` of the bar."""
    log.info(f"first evaluation of samples on {data.name}: {n:,} training and Gaussian images {how}, once")
    return bar.advance


def verdicts(images: Tensor, data: Dataset) -> Tensor:
    """The probabilities (N, K) that the classifier of the evaluation gives to the classes for images (N, C, H, W), on the CPU.

    Raises UserError if the data have no classes, or images too small for it.
    """
    if (classifier := _classifier(data)) is None:
        lacks = "classes" if len(data.classes) < 2 else f"images of at least {MIN_SIDE} x {MIN_SIDE} pixels"
        raise UserError(f"{data.name} has no {lacks}.", code=2)
    device = next(classifier.net.parameters()).device
    with torch.no_grad():
        parts = [classifier.net(part.to(device)).softmax(1).cpu() for part in torch.split(images, BATCH)]
    return torch.cat(parts)


def _classifier(data: Dataset) -> Classifier | None:
    """The classifier of a data set; None if it has no classes, or images too small for the network."""
    if len(data.classes) < 2 or min(data.image[1:]) < MIN_SIDE:
        return None
    with progress_bar(f"training the classifier of {data.name}, once", STEPS) as bar:

        @functools.cache
        def log_once() -> None:
            log.info(f"first evaluation of samples on {data.name}: its classifier is trained, once, and kept")

        def advance(done: int) -> None:
            log_once()
            bar.update(done)

        return classifier_of(data, advance)
