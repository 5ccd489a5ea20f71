"""How figures look, and how they are written: one size, one set of colours, text taken literally."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from aelab.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

P = ParamSpec("P")

DRAWN = (".png", ".pdf", ".svg", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".eps", ".ps")  # endings that `save` takes
WIDTH = 10  # inches of a figure for a slide
DPI = 200  # pixels an inch: a slide's figure is 2,000 pixels wide
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito 2008
CLASS_COLOURS = (  # of ten classes, in order; Tol 2021, "muted", and black
    "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#000000",
)  # fmt: skip


@contextmanager
def plain_style() -> Iterator[None]:
    """matplotlib's defaults while the block lasts, and text drawn literally, never as mathematics or by LaTeX.

    Names in a figure may come from anyone, and so may a matplotlibrc, which matplotlib also reads in the working folder.
    """
    import matplotlib

    defaults = {key: value for key, value in matplotlib.rcParamsDefault.items() if "backend" not in key}
    with matplotlib.rc_context({**defaults, "text.parse_math": False, "svg.hashsalt": "aelab"}):
        yield


def plain(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
    """A function that draws in the plain style."""

    @wraps(draw)
    def inner(*arguments: P.args, **named: P.kwargs) -> "Figure":
        with plain_style():
            return draw(*arguments, **named)

    return inner


def new_figure(width: float = WIDTH, height: float = 0.5 * WIDTH, dpi: int = DPI) -> "Figure":
    """An empty figure, in inches, that is written in the plain style too: the labels of an axis are made only then."""
    from matplotlib.figure import Figure

    class PlainFigure(Figure):
        def savefig(self, *arguments: Any, **named: Any) -> None:
            with plain_style():
                super().savefig(*arguments, **named)

    return PlainFigure(layout="constrained", dpi=dpi, figsize=(width, height))


def save(path: Path, figure: "Figure") -> None:
    """Writes a figure to a file; its suffix sets the format. Raises UserError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}", code=2) from error


def encoded(figure: "Figure", form: str = "png") -> bytes:
    """A figure as the bytes of a file, for a page: `form` is png or svg."""
    file = io.BytesIO()
    figure.savefig(file, format=form)
    return file.getvalue()
