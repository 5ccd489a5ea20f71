"""Tables of text that fit a terminal: which columns are shown, how wide they are, and where prose breaks.

A table is its columns by their headings. No cell is broken: a cell is shown whole, or without its middle.
"""

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence

from rich.cells import cell_len, chop_cells

from aelab.errors import visible

Cells = dict[str, list[str]]  # the columns of a table, by their headings

GAP = 2  # spaces between the columns of a table
READABLE = 24  # columns of the terminal that a shortened cell keeps, before other cells are left out for it
SHORTEST = 12  # columns that it keeps in any case


def is_number(value: object) -> bool:
    """Whether a cell is aligned right: a number, or a missing one."""
    return isinstance(value, (int, float, type(None)))


def width_of(name: str, cells: Cells) -> int:
    """The columns of the terminal that a column of a table takes."""
    return max(map(cell_len, (visible(name), *cells[name])))


def total(cells: Cells) -> int:
    """The columns of the terminal that a table takes."""
    return sum(width_of(name, cells) for name in cells) + GAP * (len(cells) - 1)


def fitted(cells: Cells, width: int, drop: Sequence[str], shorten: str | None) -> tuple[Cells, list[str]]:
    """A table that fits if it can, and the names of the columns that were left out for that."""
    dropped: list[str] = []
    for name in (None, *drop):
        if name is not None and name in cells:
            cells = {each: column for each, column in cells.items() if each != name}
            dropped.append(name)
        if total(readable := _narrowed(cells, shorten, width, READABLE)) <= width:
            return readable, dropped
    shortest = _narrowed(cells, shorten, width, SHORTEST)
    return (shortest if total(shortest) <= width else readable), dropped


def _narrowed(cells: Cells, shorten: str | None, width: int, least: int) -> Cells:
    """A table whose column `shorten` is as narrow as it must be to fit, but never narrower than `least`."""
    if shorten is None or shorten not in cells:
        return cells
    room = max(least, width - total(cells) + width_of(shorten, cells))
    return {**cells, shorten: [_shortened(cell, room) for cell in cells[shorten]]}


def turned(cells: Cells, width: int) -> Cells | None:
    """A table with columns for rows, headed by the cells of the first column; None if it does not fit that way."""
    first, *others = cells
    side = width_of("", {"": others})
    room = (width - side) // max(1, len(cells[first])) - GAP
    names = [_shortened(cell, max(room, SHORTEST)) for cell in cells[first]]
    table = {first: others} | {name: [cells[other][k] for other in others] for k, name in enumerate(names)}
    return table if len(set(names)) == len(names) and first not in names and total(table) <= width else None


def _shortened(text: str, width: int) -> str:
    """A text without its middle if it is longer than `width`."""
    if cell_len(text) <= width:
        return text
    end = (width - 1) // 2
    return chop_cells(text, width - 1 - end)[0] + "…" + chop_cells(text[::-1], end)[0][::-1]


def parts(cells: Cells, width: int, wrap: str | None) -> Iterator[Cells]:
    """A table in parts that fit, each with the first column; a column that wraps does not count as too wide."""
    first, *others = cells
    part = {first: cells[first]}
    for name in others:
        wider = {**part, name: cells[name]}
        if len(part) > 1 and total({n: column for n, column in wider.items() if n != wrap}) > width:
            yield part
            wider = {first: cells[first], name: cells[name]}
        part = wider
    yield part


def line(row: Mapping[str, str], widths: Mapping[str, int], right: Collection[str]) -> str:
    """A row whose cells are padded to the widths of their columns."""
    padded = []
    for name, cell in row.items():
        space = " " * (widths[name] - cell_len(cell))
        padded.append(space + cell if name in right else cell + space)
    return (" " * GAP).join(padded).rstrip()


def folded(text: str, width: int, indent: str = "", first: str | None = None) -> str:
    """A text in lines that break between words, each after `indent`, or the first after `first`.

    A longer word stays whole, as a path must.
    """
    return textwrap.fill(
        text,
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
