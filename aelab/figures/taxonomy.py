"""The figure that closes the lecture: generative models beside real images, with what can be said of each in numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from aelab.errors import visible
from aelab.figures.style import WIDTH, new_figure, plain
from aelab.figures.tiles import need_images
from aelab.figures.trained import TrainedRun, data_name, need, need_one_data_set
from aelab.recipe import Generates, HasLikelihood

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROWS, COLUMNS = 6, 5  # of the images of each model
NONE = "—"  # a value that was not measured
DENSITIES = {"exact": "= {:.1f} nats, exact", "bound": "≤ {:.1f} nats, bound", "AIS": "≈ {:.1f} nats, AIS"}
OF_PIXELS = {"binary": "of binary pixels", "grey": "density of grey values", "levels": "of 256 grey values"}


@need(Generates)
def taxonomy(*runs: TrainedRun) -> "Figure":
    """Samples of generative models beside real images; below each its likelihood, Fréchet distance, coverage and speed."""
    need_one_data_set(runs, "taxonomy")
    n = ROWS * COLUMNS
    ordered = sorted(runs, key=lambda run: list(DENSITIES).index(_density(run)) if _density(run) else len(DENSITIES))
    baseline: Mapping[str, float] = next(
        (run.info.metrics for run in runs if "test/real_fd_lenet" in run.info.metrics), {}
    )
    images = {"real images": runs[0].data().test.batch(slice(0, n))[0].cpu()}
    texts = {"real images": [NONE, "", *_distances(baseline, "real_"), NONE]}
    for run in ordered:
        label = run.info.recipe if [r.info.recipe for r in runs].count(run.info.recipe) == 1 else run.name
        images[label] = run.sample(n)
        seconds = run.info.metrics.get("test/sample_seconds")
        texts[label] = [
            *_likelihood(run),
            *_distances(run.info.metrics),
            f"{seconds:.2g} s" if seconds is not None else NONE,
        ]
    return taxonomy_figure(images, texts, f"{data_name(runs[0])}: generative models by what they know of p(x)")


def _density(run: TrainedRun) -> str:
    """How the likelihood of a run was obtained, a key of DENSITIES; empty without one."""
    how = run.info.tags.get("aelab.marginal_nll", "bound")  # runs of earlier versions have no such tag
    return how if "test/marginal_nll" in run.info.metrics and how in DENSITIES else ""


def _likelihood(run: TrainedRun) -> list[str]:
    """The negative log-likelihood of a run and what it is a likelihood of; "none" where the model has none."""
    if not isinstance(run.recipe, HasLikelihood):
        return ["none", ""]
    if not (how := _density(run)):
        return [NONE, ""]
    nll = DENSITIES[how].format(run.info.metrics["test/marginal_nll"])
    return [nll, OF_PIXELS.get(run.info.tags.get("aelab.likelihood", ""), "")]


def _distances(metrics: Mapping[str, float], of: str = "") -> list[str]:
    """The Fréchet distance in the classifier's features, and the coverage."""
    fd, coverage = metrics.get(f"test/{of}fd_lenet"), metrics.get(f"test/{of}coverage_lenet")
    return [f"{fd:.3g}" if fd is not None else NONE, f"{100 * coverage:.0f} %" if coverage is not None else NONE]


@plain
def taxonomy_figure(images: Mapping[str, Tensor], texts: Mapping[str, Sequence[str]], title: str) -> "Figure":
    """A sheet of images (N, C, H, W) of each model beside the others, all equally large, and its five texts below it.

    The texts are the likelihood in nats, what it is of, the Fréchet distance, the coverage, and the time to sample.
    """
    need_images(next(iter(images.values())))
    names = ("-log p(x)", "", "Fréchet distance", "coverage", "64 samples in")
    high, wide = next(iter(images.values())).shape[2:]
    margin = 1.25  # inches, for the names of the rows
    side = (WIDTH - margin) / len(images)  # inches of a sheet
    figure = new_figure(WIDTH, 0.6 + side * ROWS * high / (COLUMNS * wide) + 1.2)
    figure.suptitle(visible(title), fontsize=13)
    cells = figure.subplots(1, len(images), squeeze=False)[0]
    size = 9 if len(images) > 5 else 10
    for k, (cell, (label, samples)) in enumerate(zip(cells, images.items(), strict=True)):
        cell.imshow(sheet(samples), interpolation="nearest")
        cell.set(xticks=[], yticks=[], anchor="N")
        cell.spines[:].set_visible(False)
        cell.set_title(visible(label), fontsize=11, fontweight="bold")
        for line, text in enumerate(texts[label]):
            place = {"xycoords": "axes fraction", "textcoords": "offset points", "va": "top", "fontsize": size}
            down = (0, -8 - 17 * line)
            cell.annotate(visible(text), (0.5, 0), xytext=down, ha="center", **place)
            if not k:
                cell.annotate(names[line], (0, 0), xytext=(-10, down[1]), ha="right", color="0.35", **place)
    return figure


def sheet(samples: Tensor) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]]":
    """Images (N, C, H, W) in [0, 1] in rows of COLUMNS, (H', W', 3), with white gaps."""
    high, wide = samples.shape[2:]
    gap = math.ceil(wide / 14)
    rows = -(-len(samples) // COLUMNS)
    whole = np.ones((rows * (high + gap) - gap, COLUMNS * (wide + gap) - gap, 3), np.float32)
    pixels = samples.detach().float().cpu().clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    for k, image in enumerate(pixels):
        top, left = k // COLUMNS * (high + gap), k % COLUMNS * (wide + gap)
        whole[top : top + high, left : left + wide] = image
    return whole
