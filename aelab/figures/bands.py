"""Lines of repeated runs: the mean, and a band of one standard deviation to each side."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aelab.errors import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Points = Mapping[float, Sequence[float]]  # x -> the values of the runs there
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def draw_line(axes: "Axes", points: Points, label: str, colour: str, style: str = "o-") -> None:
    """The mean of the values at each x, and the sample standard deviation (n - 1) as a band where there are two or more."""
    x = sorted(points)
    means = np.array([np.mean(points[each]) for each in x])
    spread = np.array([np.std(points[each], ddof=1) if len(points[each]) > 1 else np.nan for each in x])
    axes.plot(x, means, style, color=colour, label=visible(label), linewidth=2, markersize=6)
    if np.isfinite(spread).any():
        axes.fill_between(x, means - spread, means + spread, color=colour, alpha=0.25, linewidth=0)


def ticks_at(axes: "Axes", values: Sequence[float]) -> None:
    """A logarithmic x axis with ticks at the values themselves, and with none in between."""
    from matplotlib.ticker import NullLocator

    axes.set_xscale("log")
    axes.set_xticks(sorted(values), [f"{value:,g}" for value in sorted(values)])
    axes.xaxis.set_minor_locator(NullLocator())


def repetitions(*lines: Points) -> str:
    """How many runs stand behind the points of lines: "one run a point", "3 runs a point", "2 to 5 runs a point"."""
    counts = {len(values) for points in lines for values in points.values()}
    least, most = min(counts), max(counts)
    if most == 1:
        return "one run a point"
    number = f"{most}" if least == most else f"{least} to {most}"
    return f"{number} runs a point, band: standard deviation"
