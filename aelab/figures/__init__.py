"""Pictures: grids of images as arrays, plots of numbers, and the figures of the lecture, each made of trained runs.

A figure of the lecture takes runs, such as `aelab.load` returns, and returns a matplotlib figure for a slide:

    aelab.figures.reconstructions(run)

Nothing here depends on the store or a terminal.
"""

from aelab.figures.catalog import FIGURES, available, figure_function, summary
from aelab.figures.grids import (
    PATHS,
    WRITTEN,
    Picture,
    completion_grid,
    filter_grid,
    grid,
    linear,
    pairs,
    reconstruction_grid,
    walks,
    write,
)
from aelab.figures.plots import bars, contact_sheet, curve, curves, descending, picture_figure
from aelab.figures.reconstruction import reconstructions, samples
from aelab.figures.style import CLASS_COLOURS, DRAWN, encoded, save

__all__ = [
    "CLASS_COLOURS",
    "DRAWN",
    "FIGURES",
    "PATHS",
    "WRITTEN",
    "Picture",
    "available",
    "bars",
    "completion_grid",
    "contact_sheet",
    "curve",
    "curves",
    "descending",
    "encoded",
    "figure_function",
    "filter_grid",
    "grid",
    "linear",
    "pairs",
    "picture_figure",
    "reconstruction_grid",
    "reconstructions",
    "samples",
    "save",
    "summary",
    "walks",
    "write",
]
