"""A metric against the options of a sweep: a line with bands, or a heat map."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from aelab.errors import visible
from aelab.figures.bands import draw_line, repetitions
from aelab.figures.style import COLOURS, WIDTH, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Values = Sequence[tuple[Mapping[str, object], float]]  # for each run: the options that vary, and the metric
WIDE = 20  # a factor between the ends of an axis, above which it is logarithmic
MOST_CELLS = 400  # with a number in each


def sweep_figure(values: Values, metric: str) -> "Figure | None":
    """The metric against one option, or over two of them; None if there are others, or none.

    Over two it is a heat map if most combinations were tried, as in a grid, and else dots, as of a search.
    """
    names = list(values[0][0]) if values else []
    if len(names) == 1:
        return metric_curve([(each[names[0]], value) for each, value in values], names[0], metric)
    if len(names) != 2:
        return None
    cells = [(each[names[0]], each[names[1]], value) for each, value in values]
    tried = {(row, column) for row, column, _ in cells}
    rows, columns = ({each[k] for each in tried} for k in (0, 1))
    numbers = all(isinstance(value, (int, float)) for value in rows | columns)
    draw = dots if numbers and 2 * len(tried) < len(rows) * len(columns) else heat_map
    return draw(cells, (names[0], names[1]), metric)


@plain
def metric_curve(points: Sequence[tuple[object, float]], name: str, metric: str) -> "Figure":
    """A metric against an option, (value of the option, metric) for each run; mean and band of the standard deviation.

    The axis is logarithmic if the values of the option span more than a factor of 20; values that are no numbers stand side
    by side.
    """
    x = _in_order([value for value, _ in points])
    numeric = all(isinstance(value, (int, float)) for value in x)
    place = {value: float(value) if numeric else float(k) for k, value in enumerate(x)}  # type: ignore[arg-type]
    lines: defaultdict[float, list[float]] = defaultdict(list)
    for value, result in points:
        lines[place[value]].append(result)
    figure = new_figure()
    axes = figure.subplots()
    draw_line(axes, lines, metric, COLOURS[0], "o-" if numeric else "o")
    if numeric and min(place.values()) > 0 and max(place.values()) > WIDE * min(place.values()):
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    if not numeric or len(x) <= 12:
        axes.set_xticks([place[value] for value in x], [_text(value) for value in x])
        axes.minorticks_off()
    axes.set_xlabel(visible(name), fontsize=11)
    axes.set_ylabel(visible(metric), fontsize=11)
    axes.set_title(visible(f"{metric} against {name} ({repetitions(lines)})"), fontsize=12)
    axes.grid(alpha=0.3)
    return figure


@plain
def heat_map(cells: Sequence[tuple[object, object, float]], names: tuple[str, str], metric: str) -> "Figure":
    """The mean of a metric over two options, (first option, second option, metric) for each run, with its number in each cell.

    The first option goes down, the second to the right. A combination without a run is white.
    """
    rows, columns = _in_order([row for row, _, _ in cells]), _in_order([column for _, column, _ in cells])
    results: defaultdict[tuple[int, int], list[float]] = defaultdict(list)
    for row, column, value in cells:
        results[rows.index(row), columns.index(column)].append(value)
    means = np.full((len(rows), len(columns)), np.nan)
    for at, found in results.items():
        means[at] = np.mean(found)
    figure = new_figure(WIDTH, min(max(2.5, 0.6 * len(rows) + 1.8), WIDTH))
    axes = figure.subplots()
    image = axes.imshow(means, cmap="cividis", aspect="auto")
    if means.size <= MOST_CELLS:
        middle = (np.nanmin(means) + np.nanmax(means)) / 2
        for (i, j), found in results.items():
            spread = f"\n± {np.std(found, ddof=1):.2g}" if len(found) > 1 else ""
            colour = "white" if means[i, j] < middle else "black"
            axes.text(j, i, f"{means[i, j]:.4g}{spread}", ha="center", va="center", color=colour, fontsize=9)
    axes.set_xticks(range(len(columns)), [_text(value) for value in columns])
    axes.set_yticks(range(len(rows)), [_text(value) for value in rows])
    axes.set_ylabel(visible(names[0]), fontsize=11)
    axes.set_xlabel(visible(names[1]), fontsize=11)
    count = repetitions({float(i * len(columns) + j): found for (i, j), found in results.items()}).partition(",")[0]
    axes.set_title(visible(f"{metric} over {names[0]} and {names[1]} ({count.replace('point', 'cell')})"), fontsize=12)
    figure.colorbar(image, label=visible(metric))
    return figure


@plain
def dots(cells: Sequence[tuple[object, object, float]], names: tuple[str, str], metric: str) -> "Figure":
    """A metric over two options with numbers, as a dot for each run: (first option, second option, metric).

    The first option goes to the right, the second up; an axis is logarithmic if its values span more than a factor of 20.
    """
    x, y, values = (np.array([float(cell[k]) for cell in cells]) for k in range(3))  # type: ignore[arg-type]
    figure = new_figure()
    axes = figure.subplots()
    shown = axes.scatter(x, y, c=values, cmap="cividis", s=120, edgecolors="black", linewidths=0.5)
    for name, along, axis, scale in (
        (names[0], x, axes.xaxis, axes.set_xscale),
        (names[1], y, axes.yaxis, axes.set_yscale),
    ):
        if along.min() > 0 and along.max() > WIDE * along.min():
            scale("log")
            _plain_numbers(axis)
        axis.set_label_text(visible(name), fontsize=11)
    axes.set_title(visible(f"{metric} over {names[0]} and {names[1]} ({len(cells)} runs)"), fontsize=12)
    axes.grid(alpha=0.3)
    axes.set_axisbelow(True)
    figure.colorbar(shown, label=visible(metric))
    return figure


def _plain_numbers(axis: "Axis") -> None:
    """Plain numbers on a logarithmic axis, at 1, 2 and 5 times each power of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _in_order(values: Sequence[object]) -> list[object]:
    """The different values: numbers in order, then the others in alphabetical order, then None."""
    return sorted(set(values), key=lambda value: (value is None, isinstance(value, str), 0 if value is None else value))


def _text(value: object) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, (int, float)) else visible(str(value))
