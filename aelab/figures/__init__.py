"""Pictures: grids of images as arrays, plots of numbers, and the figures of the lecture, each made of trained runs.

A figure of the lecture takes runs, such as `aelab.load` returns, and returns a matplotlib figure for a slide:

    aelab.figures.reconstructions(run)

Nothing here depends on the store or a terminal.
"""

from aelab.figures.catalog import FIGURES, available, figure_function, summary
from aelab.figures.game import animate_samples, game, minimax_and_non_saturating, samples_over_training
from aelab.figures.grids import (
    PATHS,
    VERMILION,
    WRITTEN,
    Picture,
    completion_grid,
    filter_grid,
    grid,
    linear,
    pairs,
    plane_picture,
    reconstruction_grid,
    tiles,
    walks,
    write,
)
from aelab.figures.plots import bars, contact_sheet, curve, curves, descending, picture_figure
from aelab.figures.points import plane, points, vector_field
from aelab.figures.reconstruction import reconstructions, samples
from aelab.figures.style import DRAWN, encoded, save
from aelab.figures.taxonomy import taxonomy

__all__ = [
    "DRAWN",
    "FIGURES",
    "PATHS",
    "VERMILION",
    "WRITTEN",
    "Picture",
    "animate_samples",
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
    "game",
    "grid",
    "linear",
    "minimax_and_non_saturating",
    "pairs",
    "picture_figure",
    "plane",
    "plane_picture",
    "points",
    "reconstruction_grid",
    "reconstructions",
    "samples",
    "samples_over_training",
    "save",
    "summary",
    "taxonomy",
    "tiles",
    "vector_field",
    "walks",
    "write",
]
