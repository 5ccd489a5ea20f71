"""Curves, bars and contact sheets as matplotlib figures."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from aelab.errors import visible
from aelab.figures.grids import grid
from aelab.figures.style import new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMALL = 150  # pixels an inch, of figures beside a table


@plain
def contact_sheet(columns: Mapping[str, Tensor], title: str) -> "Figure":
    """The same images (N, C, H, W) as processed by each column, side by side, under the names of the columns."""
    first = next(iter(columns.values()))
    wide = 2
    figure = new_figure(1.5 * len(columns), 0.6 * len(first) / wide + 0.9, SMALL)
    figure.suptitle(title, fontsize=10)
    for axes, (name, images) in zip(np.atleast_1d(figure.subplots(1, len(columns))), columns.items(), strict=True):
        axes.imshow(grid(images, wide), interpolation="nearest")
        axes.set_title(visible(name).replace(" ", "\n"), fontsize=7)
        axes.set_axis_off()
    return figure


@plain
def curve(
    x: Sequence[float],
    lines: Mapping[str, Sequence[float]],
    x_label: str,
    y_label: str,
    title: str,
    errors: Mapping[str, Sequence[float]] | None = None,
) -> "Figure":
    """Lines over x, on a logarithmic axis with the values of x as ticks; `errors` are drawn as error bars."""
    from matplotlib.ticker import NullLocator

    figure = new_figure(5.5, 3.8, SMALL)
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


@plain
def bars(heights: Mapping[str, float], label: str) -> "Figure":
    """A bar for each name, and a dashed line at their mean."""
    figure = new_figure(5.5, 3.0, SMALL)
    axes = figure.subplots()
    axes.bar(list(map(visible, heights)), list(heights.values()))
    axes.axhline(sum(heights.values()) / len(heights), color="black", linestyle="--", linewidth=1)
    axes.set(ylabel=label)
    axes.tick_params(axis="x", rotation=0 if len(heights) <= 10 else 90)
    return figure


@plain
def descending(heights: Sequence[float], label: str) -> "Figure":
    """A bar for each value, in descending order."""
    from matplotlib.ticker import MaxNLocator

    figure = new_figure(5.5, 3.0, SMALL)
    axes = figure.subplots()
    axes.bar(range(1, len(heights) + 1), sorted(heights, reverse=True))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="dimension, sorted", ylabel=label)
    return figure


@plain
def curves(lines: Mapping[str, Sequence[tuple[int, float]]], name: str) -> "Figure":
    """One line per run through its points (step, value); the y axis is logarithmic if all values are positive."""
    from matplotlib.ticker import LogFormatter

    figure = new_figure(6.5, 3.8, SMALL)
    axes = figure.subplots()
    for points in lines.values():
        steps, values = zip(*points, strict=True)
        axes.plot(steps, values, "o-" if len(points) == 1 else "-", linewidth=1)
    if all(value > 0 for points in lines.values() for _, value in points):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(LogFormatter())
        axes.yaxis.set_minor_formatter(LogFormatter())  # the default one writes mathematical text
    axes.set(xlabel="step" if name.startswith("step/") else "epoch", ylabel=name)
    axes.grid(alpha=0.3)
    figure.legend(axes.lines, list(map(visible, lines)), loc="outside upper center", ncols=2, fontsize=8)
    return figure
