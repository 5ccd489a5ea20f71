"""Progress of long work: the work opens a bar, and the command line or a notebook may show it.

It works like logging. `show_with` installs a display once; without one, nothing is shown, and no object is passed around.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

Advance = Callable[[int], None]  # called with the number of parts that were just done


def silent(parts: int) -> None:
    """An `Advance` that shows nothing."""


class Bar(Protocol):
    """A running progress bar."""

    visible: bool

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None:
        """Sets the number of parts that are done. `title` and `text` replace what stands before and after the bar."""

    def advance(self, parts: int) -> None:
        """Adds to the number of parts that are done."""


Display = Callable[[str, int, int, bool], AbstractContextManager[Bar]]  # title, total, done already, lines


class _Invisible:
    visible = False

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None: ...

    def advance(self, parts: int) -> None: ...


@contextmanager
def _nowhere(title: str, total: int, done: int, lines: bool) -> Iterator[Bar]:
    yield _Invisible()


_display: ContextVar[Display] = ContextVar("display", default=_nowhere)


def show_with(display: Display) -> None:
    """Shows the progress bars of this context with `display` from now on."""
    _display.set(display)


def progress_bar(title: str, total: int, done: int = 0, *, lines: bool = True) -> AbstractContextManager[Bar]:
    """A bar for work of `total` parts, of which `done` are done already.

    Where no bar can move, a line now and then says how far long work is; `lines=False` is for work that logs that itself.
    """
    return _display.get()(title, total, done, lines)
