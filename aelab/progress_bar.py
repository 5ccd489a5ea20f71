"""How far long work is: the work opens a bar, and whoever has a screen shows it.

Like logging, this needs no object handed about: `show_with` installs a display once, and without one nothing is shown.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Protocol

Advance = Callable[[int], None]  # is told how many more parts are done


def silent(parts: int) -> None:
    """An `advance` for which nobody waits."""


class Bar(Protocol):
    """A running progress bar."""

    visible: bool

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None:
        """So many parts are done in all; `title` and `text` replace what stands before and behind the bar."""

    def advance(self, parts: int) -> None:
        """So many more parts are done."""


Display = Callable[[str, int, int, bool], AbstractContextManager[Bar]]  # title, total, done already, estimate


class _Invisible:
    visible = False

    def update(self, done: int, title: str | None = None, text: str | None = None) -> None: ...

    def advance(self, parts: int) -> None: ...


@contextmanager
def _nowhere(title: str, total: int, done: int, estimate: bool) -> Iterator[Bar]:
    yield _Invisible()


_display: ContextVar[Display] = ContextVar("display", default=_nowhere)


def show_with(display: Display) -> None:
    """Shows the bars of this context with `display` from now on."""
    _display.set(display)


def progress_bar(title: str, total: int, done: int = 0, *, estimate: bool = False) -> AbstractContextManager[Bar]:
    """A bar for work of `total` parts, of which some may be done already.

    With `estimate`, a display that cannot move says once in a line how much time is left, if it is long.
    """
    return _display.get()(title, total, done, estimate)
