"""Figures of denoising: images without their noise, PSNR against the strength of the noise, and filters of the first layer."""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from aelab.errors import visible
from aelab.figures.bands import MARKERS, Points, draw_line, repetitions
from aelab.figures.grids import filter_grid
from aelab.figures.style import COLOURS, WIDTH, new_figure, plain
from aelab.figures.tiles import TITLE_HEIGHT, rows_of_images, visible_lines
from aelab.figures.trained import TrainedRun, described, need, need_one_data_set, options_apart
from aelab.recipe import Denoises, HasFilters

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 10  # test images
FILTERS = 36  # of a run, the first ones
STRENGTH = {  # what the level of a kind of noise is
    "gaussian": "standard deviation of the noise",
    "dropout": "probability that a pixel is 0",
    "masking": "probability that a pixel is 0",
}


def psnr(x: Tensor, of: Tensor) -> list[float]:
    """The peak signal-to-noise ratio in dB of each image x (N, C, H, W) to its clean image, clipped to [0, 1] before."""
    mse = (x.clamp(0, 1) - of).double().square().mean((1, 2, 3))
    return [-10 * math.log10(max(each, 1e-12)) for each in mse.tolist()]


def noise_of(run: TrainedRun) -> str:
    """The noise of a run, in words."""
    params = run.info.params
    kind, level = params.get("noise", "noise"), params.get("level")
    if level is None:
        return "its own noise" if isinstance(run.recipe, Denoises) else "no noise"
    if float(level) == 0:
        return "no noise"
    return {"gaussian": f"Gaussian noise, σ = {level}"}.get(kind, f"{kind} of {float(level):.0%}")


@need(Denoises)
def denoising(run: TrainedRun, n: int = SHOWN) -> "Figure":
    """The first test images with the noise of the training, denoised, and clean, with the PSNR below each."""
    data = run.data()
    x = data.test.batch(slice(0, n))[0].cpu()  # (n, C, H, W)
    noisy = run.corrupt(x)
    return denoising_rows(x, noisy, run.reconstruct(noisy), f"{described(run)}: {noise_of(run)}")


def denoising_rows(x: Tensor, noisy: Tensor, denoised: Tensor, title: str) -> "Figure":
    """Rows of noisy, denoised and clean images (N, C, H, W); below the first two the PSNR to the clean image."""
    rows = {"noisy": noisy, "denoised": denoised, "clean": x}
    texts = {name: [f"{each:.1f} dB" for each in psnr(rows[name], x)] for name in ("noisy", "denoised")}
    return rows_of_images(rows, f"{title}\nbelow each: peak signal-to-noise ratio to the clean image", texts)


@need(Denoises, metrics=("test/denoised_psnr",))
def psnr_by_noise(*runs: TrainedRun) -> "Figure":
    """PSNR of denoised test images against the strength of the noise, beside the best linear filter and the noisy image.

    It is drawn from the metrics of `aelab eval RUN` and `aelab eval RUN --set level=...`; one panel for each kind of noise.
    """
    need_one_data_set(runs, "psnr-by-noise")
    labels = options_apart(runs, "level", "noise")
    panels = {
        kind: psnr_lines([(label, run) for label, run in zip(labels, runs, strict=True) if _kind(run) == kind])
        for kind in dict.fromkeys(map(_kind, runs))
    }
    return psnr_figure(panels, f"{described(*runs)}: test images denoised, by strength of the noise")


def _kind(run: TrainedRun) -> str:
    return str(run.info.params.get("noise", "noise"))


LINEAR, NOISY = "best linear (Wiener) filter, clipped", "noisy image, clipped"


def psnr_lines(runs: Sequence[tuple[str, TrainedRun]]) -> dict[str, dict[float, list[float]]]:
    """PSNR by level of runs with their labels: {line: {level: values}}, with lines for the linear filter and the noisy image.

    A run that was evaluated at several levels is a line; runs that were trained at several levels make one together.
    """
    lines: defaultdict[str, defaultdict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    trained = {float(run.info.params["level"]) for _, run in runs}
    for label, run in runs:
        own = float(run.info.params["level"])
        found = evaluated_levels(run.info.metrics, own)
        if len(trained) > 1:
            lines[f"{label}, each trained at its level"][own].append(found[own]["denoised_psnr"])
        for level, values in found.items():
            if len(found) > 1 or len(trained) == 1:
                lines[f"{label}, trained at {own:g}"][level].append(values["denoised_psnr"])
            for line, name in ((LINEAR, "linear_denoised_psnr"), (NOISY, "nothing_denoised_psnr")):
                if name in values:
                    lines[line][level].append(values[name])
    fixed = {line: {level: [float(np.mean(v))] for level, v in lines.pop(line, {}).items()} for line in (LINEAR, NOISY)}
    return {line: dict(points) for line, points in {**lines, **fixed}.items() if points}


def evaluated_levels(metrics: Mapping[str, float], own: float) -> dict[float, dict[str, float]]:
    """The metrics of the test by level of the noise: test/NAME is that of the training, test/level-0.25/NAME another."""
    found: defaultdict[float, dict[str, float]] = defaultdict(dict)
    for name, value in metrics.items():
        split, *between, last = name.split("/")
        if split != "test" or not last.endswith("denoised_psnr"):
            continue
        if not between:
            found[own][last] = value
        elif len(between) == 1 and between[0].startswith("level-"):
            found[float(between[0].removeprefix("level-"))][last] = value
    return dict(sorted(found.items()))


@plain
def psnr_figure(panels: Mapping[str, Mapping[str, Points]], title: str) -> "Figure":
    """PSNR by level, {kind of noise: {line: {level: values}}}: a panel for each kind, with one axis of the PSNR."""
    figure = new_figure(height=5.4)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    models = list(dict.fromkeys(line for lines in panels.values() for line in lines if line not in (LINEAR, NOISY)))
    for axes, (kind, lines) in zip(all_axes, panels.items(), strict=True):
        for line, points in lines.items():
            if line in (LINEAR, NOISY):
                draw_line(axes, points, line, *(("black", "--") if line == LINEAR else ("0.5", ":")))
                continue
            k = models.index(line)
            draw_line(axes, points, line, COLOURS[k % len(COLOURS)], f"{MARKERS[k % len(MARKERS)]}-")
        axes.set_title(visible(f"{kind} noise"), fontsize=11)
        axes.set_xlabel(STRENGTH.get(kind, "level of the noise"), fontsize=11)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    all_axes[0].set_ylabel("PSNR to the clean image, dB", fontsize=11)
    shown = [points for lines in panels.values() for line, points in lines.items() if line in models]
    figure.suptitle(visible_lines(f"{title}\n{repetitions(*shown)}"), fontsize=12)
    return figure


@need(HasFilters)
def first_layer_filters(*runs: TrainedRun) -> "Figure":
    """Filters of the first layer of several runs, from no noise to strong noise; 0 is grey, each filter has its own scale."""
    need_one_data_set(runs, "first-layer-filters")
    ordered = sorted(runs, key=lambda run: (_kind(run), float(run.info.params.get("level", 0))))
    filters = {f"{run.name:.24}\n{noise_of(run)}": run.recipe.filters().detach().cpu() for run in ordered}  # type: ignore[operator]
    return filters_figure(filters, f"{described(*runs)}: filters of the first layer")


def strongest(filters: Tensor, n: int) -> Tensor:
    """The n filters of (N, C, H, W) with the largest norm, the largest first: those that the training changed most."""
    return filters[filters.flatten(1).norm(dim=1).argsort(descending=True)[:n]]


@plain
def filters_figure(filters: Mapping[str, Tensor], title: str) -> "Figure":
    """The strongest filters (N, C, H, W) of each run as a sheet under its label."""
    columns = min(4, len(filters))
    rows = -(-len(filters) // columns)
    wide = 12 if columns == 1 else 6
    height = WIDTH / columns * FILTERS / wide**2 + 0.4
    figure = new_figure(WIDTH, rows * height + TITLE_HEIGHT)
    all_axes = figure.subplots(rows, columns, squeeze=False).flat
    for axes, found in itertools.zip_longest(all_axes, filters.items()):
        axes.set_axis_off()
        if found:
            axes.imshow(filter_grid(strongest(found[1], FILTERS), wide), interpolation="nearest")
            axes.set_title(visible_lines(found[0]), fontsize=10)
    figure.suptitle(
        visible_lines(
            f"{title}, the {FILTERS} with the largest norm of each\n0 is grey; each filter has its own scale"
        ),
        fontsize=12,
    )
    return figure
