"""Pictures: grids, strips, curves and contact sheets, as uint8 arrays (H, W, 3) or matplotlib figures."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from aelab.errors import UserError, visible
from aelab.recipe import Autoencodes, Decodes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]
TILE = 28  # pixels: smaller images are enlarged, pixel by pixel, to at least this
GAP = 2
WRITTEN = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".ppm",
    ".pdf",
)  # endings that `write` takes
DRAWN = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")  # and `save`


def grid(images: Tensor, columns: int = 8) -> Picture:
    """Images (N, C, H, W) with values in [0, 1] in rows of `columns`, on a mid-grey ground."""
    tiles = images.detach().float().cpu().clamp(0, 1)
    scale = max(1, -(-TILE // min(tiles.shape[2:])))
    tiles = (tiles * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    tiles = tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, _, height, width = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 128, dtype=torch.uint8)
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + GAP) + GAP, (k % columns) * (width + GAP) + GAP
        sheet[:, top : top + height, left : left + width] = tile
    return np.ascontiguousarray(sheet.permute(1, 2, 0).numpy())


def write(path: Path, picture: Picture) -> None:
    """Writes a picture to a file whose ending names the format. Raises UserError if that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(picture).save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}", code=2) from error


def pairs(above: Tensor, below: Tensor, columns: int = 8) -> Picture:
    """Rows of images (N, C, H, W), each with the row of its partners below it."""
    columns = min(columns, len(above))
    blank = above.new_full((-len(above) % columns, *above.shape[1:]), 128 / 255)  # fills the last row
    rows = [torch.split(torch.cat([part, blank]), columns) for part in (above, below)]
    return grid(torch.cat([row for pair in zip(*rows, strict=True) for row in pair]), columns)


def reconstructions(recipe: Autoencodes, x: Tensor, columns: int = 8) -> Picture:
    """Rows of inputs x (N, C, H, W), each with the row of its reconstructions below it."""
    return pairs(x, recipe.decode(recipe.encode(x)), columns)


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points (T, D) on the straight line from code a (D,) to code b (D,), t (T,) from 0 to 1."""
    return torch.lerp(a, b, t[:, None])


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points (T, D) on the great arc from a to b, their length going evenly from |a| to |b| (White 2016).

    Under a normal prior in many dimensions codes lie near a sphere; the straight line cuts through its empty inside.
    Parallel or opposite codes have no one great arc: they get the straight line.
    """
    length_a, length_b = a.norm(), b.norm()
    cosine = (a @ b / (length_a * length_b)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if not angle.sin() > 1e-4:  # also where a code is zero
        return linear(a, b, t)
    t = t[:, None]
    direction: Tensor = (((1 - t) * angle).sin() * a / length_a + (t * angle).sin() * b / length_b) / angle.sin()
    return direction * torch.lerp(length_a, length_b, t)


PATHS = {"linear": linear, "spherical": spherical}


def walks(recipe: Decodes, starts: Tensor, ends: Tensor, steps: int, path: str) -> Picture:
    """For each pair of codes (N, D) one row of images along the path, `steps` of them, both ends included."""
    t = torch.linspace(0, 1, steps, device=starts.device)
    codes = [PATHS[path](a, b, t) for a, b in zip(starts, ends, strict=True)]
    return grid(recipe.decode(torch.cat(codes)), steps)


def _figure(**how: Any) -> "Figure":
    """An empty figure. The names in it come from anyone: they are drawn as they are, never as mathematics or by LaTeX.

    A matplotlibrc, which matplotlib reads in the working folder too, counts for nothing.
    """
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcdefaults()
    matplotlib.rcParams["text.parse_math"] = False
    return Figure(layout="constrained", dpi=150, **how)


def contact_sheet(columns: Mapping[str, Tensor], title: str) -> "Figure":
    """The same test images (N, C, H, W) side by side as each column shows them, under the column's name."""
    first = next(iter(columns.values()))
    wide = 2
    figure = _figure(figsize=(1.5 * len(columns), 0.6 * len(first) / wide + 0.9))
    figure.suptitle(title, fontsize=10)
    for axes, (name, images) in zip(np.atleast_1d(figure.subplots(1, len(columns))), columns.items(), strict=True):
        axes.imshow(grid(images, wide), interpolation="nearest")
        axes.set_title(visible(name).replace(" ", "\n"), fontsize=7)
        axes.set_axis_off()
    return figure


def curve(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    title: str,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> "Figure":
    """Lines over x, which is drawn on a logarithmic axis with its own values as ticks; bars of `errors` up and down."""
    from matplotlib.ticker import NullLocator

    figure = _figure(figsize=(5.5, 3.8))
    axes = figure.subplots()
    for (name, y), style in zip(lines.items(), itertools.cycle(("o-", "s--", "^:", "d-.")), strict=False):
        (line,) = axes.plot(x, y, style, label=visible(name))
        if errors and name in errors:
            axes.errorbar(x, y, yerr=errors[name], fmt="none", ecolor=line.get_color(), capsize=3)
    axes.set_xscale("log")
    axes.set_xticks(list(x), [f"{value:g}" for value in x])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set(xlabel=x_label, ylabel=y_label, title=title, ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def bars(heights: Mapping[str, float], label: str) -> "Figure":
    """A bar for each name; a line where all of them are equal."""
    figure = _figure(figsize=(5.5, 3.0))
    axes = figure.subplots()
    axes.bar(list(map(visible, heights)), list(heights.values()))
    axes.axhline(sum(heights.values()) / len(heights), color="black", linestyle="--", linewidth=1)
    axes.set(ylabel=label)
    axes.tick_params(axis="x", rotation=0 if len(heights) <= 10 else 90)
    return figure


def descending(heights: Sequence[float], label: str) -> "Figure":
    """A bar for each value, the largest first."""
    from matplotlib.ticker import MaxNLocator

    figure = _figure(figsize=(5.5, 3.0))
    axes = figure.subplots()
    axes.bar(range(1, len(heights) + 1), sorted(heights, reverse=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="dimension, sorted", ylabel=label)
    return figure


def curves(lines: Mapping[str, Sequence[tuple[int, float]]], name: str) -> "Figure":
    """One line a run through its points (step, value), on a logarithmic axis where all values are positive."""
    from matplotlib.ticker import LogFormatter

    figure = _figure(figsize=(6.5, 3.8))
    axes = figure.subplots()
    for points in lines.values():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, "o-" if len(points) == 1 else "-", linewidth=1)
    if all(value > 0 for points in lines.values() for _, value in points):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())  # the usual one writes mathematics
    axes.set(xlabel="step" if name.startswith("step/") else "epoch", ylabel=name)
    axes.grid(alpha=0.3)
    figure.legend(axes.lines, list(map(visible, lines)), loc="outside upper center", ncols=2, fontsize=8)
    return figure


def save(path: Path, figure: "Figure") -> None:
    """Writes a figure to a file whose ending names the format. Raises UserError if that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}", code=2) from error
