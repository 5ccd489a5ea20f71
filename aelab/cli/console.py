"""The terminal: results go to stdout, everything else to stderr, and bars only to a terminal. The only use of rich.

Names of runs, files, classes and metrics may come from anyone: all text goes through `visible`, and none is parsed as rich's
markup.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from typing import Any

from rich.console import Console as RichConsole
from rich.console import JustifyMethod
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from aelab.errors import shown, visible
from aelab.metrics import number
from aelab.progress_bar import Bar, show_with

ESTIMATE_AFTER = 3.0  # seconds of work, before the time left is estimated
LONG_WAIT = 10.0  # seconds: a shorter time left is not mentioned
SHOWN_AFTER = 0.3  # seconds of work, before a bar is shown


class Terminal(RichConsole):
    """A console that survives the end of its reader, as in `aelab ... | head`: it shows nothing more, and the work continues.

    The work also continues if stderr cannot be written. A result that cannot be written to stdout raises OSError.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(OSError) if self.stderr else nullcontext():
            super().print(*objects, **how)

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Console:
    """Prints what a verb returns. A new console also shows the log of aelab and its progress bars on stderr.

    `quiet` shows results, warnings and errors only; `verbose` adds details.
    """

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.out = Terminal(
            soft_wrap=True, highlight=False, width=None if sys.stdout.isatty() else 1000
        )  # a file is wide
        self.err = Terminal(stderr=True, soft_wrap=True, highlight=False)
        self._moving = self.err.is_terminal and not self.err.is_dumb_terminal and not quiet
        logger = logging.getLogger("aelab")
        logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _Handler)]
        logger.addHandler(_Handler(self.err))
        logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
        show_with(self._bar)

    def result(self, text: str) -> None:
        """Prints one line of the result to stdout."""
        self.out.print(Text(visible(text)))

    def block(self, text: str) -> None:
        """Prints a result of several lines to stdout."""
        for line in text.split("\n"):
            self.result(line)

    def data(self, value: Any) -> None:
        """Prints one JSON object to stdout."""
        text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
        shown = (sign if sign.isprintable() or sign == "\n" else json.dumps(sign)[1:-1] for sign in text)
        sys.stdout.write("".join(shown) + "\n")

    def note(self, text: str) -> None:
        """Prints a remark to stderr, unless the console is quiet."""
        logging.getLogger("aelab").info(text)

    def error(self, text: str) -> None:
        """Prints the error that ends the command to stderr."""
        first, *rest = map(visible, text.split("\n"))
        self.err.print(Text(f"error: {first}", style="bold red"))
        for line in rest:
            self.err.print(Text(line))

    def interrupted(self, text: str) -> None:
        """Prints to stderr that the command was interrupted, in one line: what is kept, and what to type."""
        self.err.print(Text(f"Interrupted: {visible(' '.join(text.split()))}" if text else "Interrupted."))

    def table(self, rows: Sequence[Mapping[str, object]], title: str = "", right: Collection[str] = ()) -> None:
        """Prints rows with the same keys as a table to stdout. Numbers and the columns in `right` are aligned right."""
        if not rows:
            return
        if title:
            self.result(title)
        table = Table(header_style="bold", box=None, pad_edge=False)
        for name in rows[0]:
            numeric = name in right or all(isinstance(row[name], (int, float, type(None))) for row in rows)
            justify: JustifyMethod = "right" if numeric else "left"
            table.add_column(Text(visible(name)), justify=justify, overflow="fold", no_wrap=numeric)
        for row in rows:
            table.add_row(*(Text(visible(number(value))) for value in row.values()))
        self.out.print(table, soft_wrap=False)

    @contextmanager
    def _bar(self, title: str, total: int, done: int, estimate: bool) -> Iterator[Bar]:
        """A bar on stderr. Where a bar cannot move, with `estimate`, one line says how much time is left."""
        if not self._moving:
            yield _Line(title, total, done, estimate)
            return
        # On a narrow terminal only the text is cut.
        progress = Progress(
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, min_width=len(title))),
            BarColumn(16, table_column=Column(min_width=8)),
            TextColumn("{task.percentage:>3.0f}%", table_column=Column(min_width=4)),
            TimeRemainingColumn(compact=True, table_column=Column(min_width=5)),
            TextColumn(
                "{task.fields[text]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)
            ),
            console=self.err,
            transient=True,
            expand=True,
            refresh_per_second=8,
        )
        bar = _Moving(progress, progress.add_task(visible(title), total=total, completed=done, text=""))
        try:
            yield bar
        finally:
            progress.stop()


class _Handler(logging.Handler):
    """Shows the log: notes as they are, warnings in yellow. A record with `once` is shown only once."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal
        self._shown: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        text = shown(record)
        if getattr(record, "once", False):
            if text in self._shown:
                return
            self._shown.add(text)
        if record.levelno >= logging.WARNING:
            self._terminal.print(Text(f"warning: {text}", style="yellow"))
        else:
            self._terminal.print(Text(text, style="dim" if record.levelno < logging.INFO else ""))


class _Moving:
    """A moving bar, which appears after SHOWN_AFTER seconds."""

    visible = True

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task
        self._started = time.monotonic()

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None:
        fields = {key: visible(value) for key, value in (("description", title), ("text", text)) if value is not None}
        self._progress.update(self._task, completed=done, **fields)  # type: ignore[arg-type]  # rich's own **kwargs
        self._show()

    def advance(self, parts: int) -> None:
        self._progress.advance(self._task, parts)
        self._show()

    def _show(self) -> None:
        if not self._progress.live.is_started and time.monotonic() - self._started > SHOWN_AFTER:
            self._progress.start()


class _Line:
    """A bar that is not shown. With `estimate` it logs once how much time is left, if that is long."""

    visible = False

    def __init__(self, title: str, total: int, done: int, estimate: bool) -> None:
        self._title, self._total, self._done = title, total, done
        self._estimated = not estimate
        self._first: tuple[float, float] | None = None  # time and parts done, when the first part was done

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None:
        self._done = done
        self._estimate()

    def advance(self, parts: int) -> None:
        self._done += parts
        self._estimate()

    def _estimate(self) -> None:
        """Logs how much time is left, from the time that the parts since the first one took."""
        if self._estimated:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = now, self._done
            return
        spent, done = now - self._first[0], self._done - self._first[1]
        if (
            spent > ESTIMATE_AFTER
            and done
            and self._total
            and (left := spent * (self._total - self._done) / done) > LONG_WAIT
        ):
            share = 100 * self._done / self._total
            logging.getLogger("aelab").info(f"{self._title}: {share:.0f} % done, about {duration(left)} left")
            self._estimated = True


def duration(seconds: float) -> str:
    """A duration as text, such as 40 s or 3 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
