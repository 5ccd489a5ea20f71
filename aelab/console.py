"""The terminal: results to stdout, everything else to stderr, a bar only where someone can see it. The only rich.

Names of runs, files, classes and figures come from anyone: everything that is shown goes through `visible`, and no text is
read as rich's markup.
"""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console, JustifyMethod
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from aelab.errors import visible

SOON, LONG = 3.0, 10.0  # seconds after which the time that is left is said, and from how many on


def number(value: object) -> str:
    """A figure in four significant digits; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "" if value is None else str(value)
    if abs(value) > 1e300:
        return "inf" if value > 0 else "-inf"  # a store keeps infinity as the largest number there is
    return f"{value:.4g}" if abs(value) < 1e4 or math.isnan(value) else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """A time in words, such as 40 s or 3 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


class Terminal(Console):
    """A console whose reader may go away, as in `aelab ... | head`: then nothing is shown any more, and the work goes on.

    So it does where stderr is on a full disk; a result that cannot be written to stdout is an OSError.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(OSError) if self.stderr else nullcontext():
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Screen:
    """What a verb shows. Quiet: results, warnings and errors only; `about` says what a warning is about."""

    def __init__(self, quiet: bool = False, about: str = "") -> None:
        self.quiet, self._about = quiet, f"{about}: " if about else ""
        self._said: set[str] = set()
        self.out = Terminal(
            soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 1000
        )  # a file is wide
        self.err = Terminal(stderr=True, soft_wrap=True, highlight=False)

    def result(self, text: str) -> None:
        """A line of the answer, to stdout."""
        self.out.print(Text(visible(text)))

    def block(self, text: str) -> None:
        """An answer of many lines, to stdout."""
        for line in text.split("\n"):
            self.result(line)

    def data(self, value: Any) -> None:
        """One JSON object, to stdout."""
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        shown = (sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)
        sys.stdout.write("".join(shown) + "\n")

    def note(self, text: str) -> None:
        if not self.quiet:
            self.err.print(Text(visible(text)))

    def warn(self, *lines: str) -> None:
        shown = "\n".join(map(visible, lines))
        self.err.print(Text(f"warning: {self._about}{shown}", style="yellow"))

    def once(self, text: str) -> None:
        """A warning that is not repeated."""
        if text not in self._said:
            self._said.add(text)
            self.warn(text)

    def error(self, text: str) -> None:
        first, *rest = map(visible, text.split("\n"))
        self.err.print(Text(f"error: {first}", style="bold red"))
        for line in rest:
            self.err.print(Text(line))

    def table(self, rows: Sequence[Mapping[str, object]], title: str = "", right: Collection[str] = ()) -> None:
        """Rows with the same keys as a table, to stdout; figures, and the columns named in `right`, stand on the right."""
        if not rows:
            return
        if title:
            self.result(title)
        table = Table(header_style="bold", box=None, pad_edge=False)
        for name in rows[0]:
            figures = name in right or all(isinstance(row[name], (int, float, type(None))) for row in rows)
            justify: JustifyMethod = "right" if figures else "left"
            table.add_column(Text(visible(name)), justify=justify, overflow="fold", no_wrap=figures)
        for row in rows:
            table.add_row(*(Text(visible(number(value))) for value in row.values()))
        self.out.print(table, soft_wrap=False)

    @contextmanager
    def progress(self, title: str, total: int, done: int = 0, foretell: bool = False) -> "Iterator[Bar]":
        """A bar on stderr while something of `total` parts runs; without a terminal nothing moves.

        There one line says, with `foretell`, how long it will take, if that is more than LONG.
        """
        shown = self.err.is_terminal and not self.err.is_dumb_terminal and not self.quiet
        # On a narrow terminal the text is cut, and the rest stands.
        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=len(title))),
            BarColumn(16, table_column=Column(min_width=8)),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4)),
            TimeRemainingColumn(compact=True, table_column=Column(min_width=5)),
            TextColumn(
                "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
        )
        with Progress(
            *columns, console=self.err, disable=not shown, transient=True, expand=True, refresh_per_second=8
        ) as progress:
            say = self.note if foretell and not shown else None
            yield Bar(progress, progress.add_task(visible(title), total=total, completed=done, text=""), say)

    @contextmanager
    def fetching(self) -> "Iterator[Fetching]":
        """Bars for files that are downloaded or read, one after the other, where that takes a while."""
        yield (fetching := Fetching(self))
        fetching.close()


class Bar:
    """A running progress bar. Where nobody sees it, `say` is told once how much is left, if that is long."""

    def __init__(self, progress: Progress, task: TaskID, say: Callable[[str], None] | None = None) -> None:
        self._progress, self._task, self._say = progress, task, say
        self._first: tuple[float, float] | None = None  # when, and how much of it was done

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None:
        fields = {key: visible(value) for key, value in (("description", title), ("text", text)) if value is not None}
        self._progress.update(self._task, completed=done, **fields)  # type: ignore[arg-type]  # rich's own **kwargs
        self._foretell()

    def advance(self, parts: int) -> None:
        """So many more parts are done."""
        self._progress.advance(self._task, parts)
        self._foretell()

    def _foretell(self) -> None:
        """Says how much is left, by the time that parts took since the first of them was done."""
        if self._say is None:
            return
        task, now = self._progress.tasks[0], time.monotonic()
        if self._first is None:
            self._first = now, task.completed
            return
        spent, done = now - self._first[0], task.completed - self._first[1]
        if spent > SOON and done and task.total and (left := spent * (task.total - task.completed) / done) > LONG:
            self._say(
                f"{task.description}: {100 * task.completed / task.total:.0f} % done, about {duration(left)} left"
            )
            self._say = None


class Fetching:
    """Calls as `advance(name, done, total)`; a name that takes under half a second is not shown."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._name, self._started = screen, "", 0.0
        self._bar: Any = None
        self._shown: Bar | None = None

    def __call__(self, name: str, done: int, total: int) -> None:
        if name != self._name:
            self.close()
            self._name, self._started = name, time.monotonic()
        if self._shown is None and time.monotonic() - self._started > 0.5:
            self._bar = self._screen.progress(name, total)
            self._shown = self._bar.__enter__()
        if self._shown:
            self._shown.update(done)

    def close(self) -> None:
        if self._bar:
            self._bar.__exit__(None, None, None)
        self._bar = self._shown = None
