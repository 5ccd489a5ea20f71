"""The error of reconstructions against the size of the code, beside PCA: the first question about an autoencoder."""

import itertools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aelab.errors import UserError
from aelab.figures.bands import MARKERS, Points, draw_line, repetitions, ticks_at
from aelab.figures.style import COLOURS, new_figure, plain
from aelab.figures.tiles import visible_lines
from aelab.figures.trained import TrainedRun, data_name, need, need_one_data_set, options_apart
from aelab.recipe import Autoencodes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aelab.data import Split


def _without_error(run: TrainedRun) -> str:
    sized = "latent_dim" in run.info.params
    return "" if sized and "sse" in run.info.validation else "it has no size of the code, or no squared error"


@need(Autoencodes, unless=_without_error)
def error_by_code_size(*runs: TrainedRun) -> "Figure":
    """The squared error of reconstructions against the size of the code, beside PCA of equal size; a band spans several seeds.

    It is that of the test images if all runs were evaluated, else that of the validation images.
    """
    need_one_data_set(runs, "error-by-code-size")
    if len({run.info.params.get("split_seed") for run in runs}) > 1:
        raise UserError("'error-by-code-size' needs runs with the same held-out images: --split-seed differs.", code=2)
    tested = all({"test/sse", "test/pca_sse"} <= run.info.metrics.keys() for run in runs)
    sizes = [int(run.info.params["latent_dim"]) for run in runs]
    lines: defaultdict[str, defaultdict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for run, size, label in zip(runs, sizes, options_apart(runs, "latent_dim"), strict=True):
        lines[label][size].append(run.info.metrics["test/sse"] if tested else run.info.validation["sse"])
    if tested:
        pca = {size: run.info.metrics["test/pca_sse"] for run, size in zip(runs, sizes, strict=True)}
    else:
        pca = pca_errors(*runs[0].pca(max(sizes)), runs[0].data().val, sorted(set(sizes)))
    return error_figure(lines, pca, f"{data_name(runs[0])}, {'test' if tested else 'validation'} images")


def pca_errors(mean: Tensor, components: Tensor, images: "Split", sizes: Sequence[int]) -> dict[int, float]:
    """The squared error per image of PCA with the first D of its components (M, P), for each size D.

    By Pythagoras it is the squared distance to the mean, less the squares of the first D coordinates.
    """
    total, explained = 0.0, torch.zeros(len(components), dtype=torch.float64)
    for x, _ in images.blocks(1000):
        centred = x.cpu().double().flatten(1) - mean  # (B, P)
        total += float(centred.square().sum())
        explained += (centred @ components.T).square().sum(0)
    left = [total, *(total - explained.cumsum(0)).tolist()]
    return {size: left[min(size, len(components))] / len(images) for size in sizes}


@plain
def error_figure(lines: Mapping[str, Points], pca: Mapping[int, float], where: str) -> "Figure":
    """Squared errors by code size, {label: {size: errors of its runs}}, and those of PCA, {size: error}."""
    figure = new_figure()
    axes = figure.subplots()
    draw_line(axes, {size: [error] for size, error in pca.items()}, "PCA", "black", ".--")
    for (label, points), colour, marker in zip(
        lines.items(), itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=False
    ):
        draw_line(axes, points, label, colour, f"{marker}-")
    ticks_at(axes, [*pca])
    axes.margins(y=0.1)
    axes.set_ylim(0, None)
    axes.set_xlabel("size of the code, numbers per image", fontsize=11)
    axes.set_ylabel("squared error per image", fontsize=11)
    title = f"{where}: squared error of reconstructions by size of the code\n{repetitions(*lines.values())}"
    axes.set_title(visible_lines(title), fontsize=12)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=10)
    return figure
