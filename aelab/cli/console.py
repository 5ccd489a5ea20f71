"""The terminal: results go to stdout, everything else to stderr, and bars only to a terminal. rich is used here and in `layout`.

Names of runs, files, classes and metrics may come from anyone: all text goes through `visible`, and none is parsed as rich's
markup.
"""

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from aelab.cli import layout
from aelab.errors import shown, visible
from aelab.metrics import definition, number
from aelab.progress_bar import Bar, show_with

ARROWS = {"lower": "↓", "higher": "↑"}
FIRST_LINE = 3.0  # seconds of work without a moving bar, before a line says how far it is
NEXT_LINE = 60.0  # seconds between such lines, at most
COPIED = re.compile(r"\baelab |\n|(^|\s)[~.]?/|:/")  # in a message: a command, lines of its own, a path, an address
WIDEST_IMAGE = 120  # columns of a picture
SHOWN_AFTER = 0.3  # seconds of work, before a bar is shown


class Terminal(RichConsole):
    """A console that survives the end of its reader, as in `aelab ... | head`: it shows nothing more, and the work continues.

    The work also continues if stderr cannot be written. A result that cannot be written to stdout raises OSError.
    """

    def print(self, *objects: Any, **how: Any) -> None:
        with suppress(OSError) if self.stderr else nullcontext():
            super().print(*objects, **how)

    def prose(self, text: str) -> str:
        """A line as a terminal shows it: broken between words, unless it holds a command or a path to copy."""
        if not self.is_terminal or COPIED.search(text):
            return text
        paired = re.sub(r"(?<=\w) (?=-?\d)", "\0", text)  # a name and its value stay together
        return layout.folded(paired, self.width, indent="  ", first="").replace("\0", " ")

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
        self._notes = not quiet
        logger = logging.getLogger("aelab")
        logger.handlers = [handler for handler in logger.handlers if not isinstance(handler, _Handler)]
        logger.addHandler(_Handler(self.err))
        logger.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)
        show_with(self._bar)

    def result(self, text: str, prose: bool = False) -> None:
        """Prints one line of the result to stdout. On a terminal `prose` breaks between words."""
        self.out.print(Text(self.out.prose(visible(text)) if prose else visible(text)))

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

    def next(self, *commands: str) -> None:
        """Prints commands to type next to stderr, one a line, unless the console is quiet. None is broken: it can be copied."""
        for k, command in enumerate(commands):
            self.note(("next     " if k == 0 else "         ") + command)

    def error(self, text: str) -> None:
        """Prints the error that ends the command to stderr."""
        first, *rest = map(visible, text.split("\n"))
        self.err.print(Text(self.err.prose(f"error: {first}"), style="bold red"))
        for line in rest:
            self.err.print(Text(self.err.prose(line)))

    def interrupted(self, text: str) -> None:
        """Prints to stderr that the command was interrupted, in one line: what is kept, and what to type."""
        self.err.print(Text(f"Interrupted: {visible(' '.join(text.split()))}" if text else "Interrupted."))

    def image(self, path: Path, name: str) -> None:
        """Shows a picture on a terminal, with the means that it has; elsewhere nothing."""
        if not self.out.is_terminal or self.out.is_dumb_terminal:
            return
        from textual_image.renderable import Image

        self.out.print(Text(visible(name), style="bold"))
        self.out.print(Image(path, width=min(self.out.width, WIDEST_IMAGE), height="auto"))

    def table(
        self,
        rows: Sequence[Mapping[str, object]],
        title: str = "",
        right: Collection[str] = (),
        *,
        drop: Sequence[str] = (),
        shorten: str | None = None,
        wrap: str | None = None,
        section: str | None = None,
        marked: Collection[str] = (),
        turn: bool = False,
    ) -> None:
        """Prints rows with the same keys as a table to stdout. Numbers and the columns in `right` are aligned right.

        A table that is too wide for the terminal: the cells of the column `shorten` lose their middle, then the columns of
        `drop` are left out in that order, and a line on stderr names them. What is still too wide is turned, with a column
        for each row, if `turn` allows it and it then fits; else it is printed in parts, each with the first column. No cell
        is cut or broken, except that the column `wrap`, of prose, breaks between words. The values of the column `section`
        are headings above their rows. The headings of the columns `marked`, which are metrics, show which direction is better.
        """
        if not rows:
            return
        if title:
            self.result(title, prose=True)
        heads = {name: f"{name} {self.arrow(known.better)}".rstrip() for name in marked if (known := definition(name))}
        rows = [{heads.get(name, name): value for name, value in row.items()} for row in rows] if heads else rows
        right = {heads.get(name, name) for name in right}
        right = {name for name in rows[0] if name in right or all(layout.is_number(row[name]) for row in rows)}
        full = {name: [visible(number(row[name])) for row in rows] for name in rows[0] if name != section}
        sections = [visible(str(row[section])) if section else "" for row in rows]
        cells, dropped = layout.fitted(full, self.out.width, drop, shorten)
        if turn and layout.total(cells) > self.out.width and (turned := layout.turned(full, self.out.width)):
            cells, sections = turned, [""] * (len(cells) - 1)
            right = {*turned} - {next(iter(turned))}
        for k, part in enumerate(layout.parts(cells, self.out.width, wrap)):
            if k:
                self.result("")
            self._part(part, sections, right, wrap)
        if dropped and self._notes:
            left = f"Left out, as the terminal is narrow: {', '.join(dropped)}. A wider one, or | cat, shows all."
            self.err.print(Text(layout.folded(left, self.out.width), style="dim"))

    def fields(self, values: Mapping[str, str], prose: Collection[str] = ()) -> None:
        """Prints names and values, one a line, without those that are empty.

        Values of `prose` break between words; others are never cut or broken, so that they can be copied.
        """
        shown = {name: visible(value) for name, value in values.items() if value}
        width = max(map(len, shown), default=0) + layout.GAP
        for name, value in shown.items():
            text = layout.folded(value, self.out.width, " " * width) if name in prose else " " * width + value
            self.out.print(Text(name.ljust(width), style="bold") + Text(text[width:], style="not bold"))

    def metrics(self, rows: Sequence[Mapping[str, object]], title: str = "") -> None:
        """Prints rows of metrics by their sections, with an arrow for the direction that is better."""
        shown = [{key: self.arrow(str(v)) if key == "better" else v for key, v in row.items()} for row in rows]
        arrows = [{"" if key == "better" else key: value for key, value in row.items()} for row in shown]
        self.table(arrows, title, section="section", drop=["unit", "control"])

    def arrow(self, better: str) -> str:
        """The mark for "lower" or "higher": an arrow, or the word where the encoding of stdout has no arrows."""
        try:
            ARROWS.get(better, "").encode(self.out.encoding)
        except (UnicodeEncodeError, LookupError):
            return better
        return ARROWS.get(better, "")

    def _part(self, cells: layout.Cells, sections: Sequence[str], right: Collection[str], wrap: str | None) -> None:
        """Prints columns that fit side by side. Lines do not end in spaces."""
        widths = {name: layout.width_of(name, cells) for name in cells}
        if wrap is not None and wrap in widths:
            others = sum(widths.values()) - widths[wrap] + layout.GAP * (len(widths) - 1)
            widths[wrap] = max(1, min(widths[wrap], self.out.width - others))
        self.out.print(Text(layout.line({name: visible(name) for name in cells}, widths, right), style="bold"))
        for k, section in enumerate(sections):
            if section and (k == 0 or section != sections[k - 1]):
                self.out.print(Text(self.out.prose(section), style="bold"))
            row = {name: column[k] for name, column in cells.items()}
            lines = layout.folded(row[wrap], widths[wrap]).split("\n") if wrap is not None and wrap in row else [None]
            for n, text in enumerate(lines):
                shown = row if n == 0 else dict.fromkeys(row, "")
                shown |= {wrap: text} if wrap is not None and text is not None else {}
                self.out.print(Text(layout.line(shown, widths, right)))

    @contextmanager
    def _bar(self, title: str, total: int, done: int, lines: bool) -> Iterator[Bar]:
        """A bar on stderr. Where a bar cannot move, with `lines`, a line now and then says how far the work is."""
        if not self._moving:
            line = _Line(title, total, done)
            with line.reporting() if lines else nullcontext():
                yield line
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
            self._terminal.print(Text(self._terminal.prose(f"warning: {text}"), style="yellow"))
        else:
            style = "dim" if record.levelno < logging.INFO else ""
            self._terminal.print(Text(self._terminal.prose(text), style=style))


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
    """A bar that is not shown. Every now and then it logs how far the work is, also while no part of it is finished."""

    visible = False

    def __init__(self, title: str, total: int, done: int) -> None:
        self._title, self._total, self._done, self._before = title, total, done, done
        self._started, self._ended = time.monotonic(), threading.Event()

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None:
        self._done = done

    def advance(self, parts: int) -> None:
        self._done += parts

    @contextmanager
    def reporting(self) -> Iterator["_Line"]:
        """Logs during the block: after FIRST_LINE seconds, and then after twice as long each time, at most NEXT_LINE."""
        reporter = threading.Thread(target=self._report, daemon=True)
        reporter.start()
        try:
            yield self
        finally:
            self._ended.set()
            reporter.join()

    def _report(self) -> None:
        wait = FIRST_LINE
        while not self._ended.wait(wait):
            logging.getLogger("aelab").info(self.where())
            wait = min(2 * wait, NEXT_LINE)

    def where(self) -> str:
        """How far the work is, and how much time is left if its parts take equally long."""
        done = self._done - self._before
        if not done or not self._total:
            return f"{self._title} ..."
        left = (time.monotonic() - self._started) * (self._total - self._done) / done
        return f"{self._title}: {100 * self._done / self._total:.0f} % done, about {_about(left)} left"


def _about(seconds: float) -> str:
    """A duration that was estimated: 40 s, 3 min."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"
