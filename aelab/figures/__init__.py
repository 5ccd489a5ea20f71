"""Pictures: grids of images as arrays, and plots as matplotlib figures. Nothing here depends on runs or a terminal."""

from aelab.figures.grids import (
    PATHS,
    WRITTEN,
    Picture,
    completions,
    filters,
    grid,
    linear,
    pairs,
    reconstructions,
    walks,
    write,
)
from aelab.figures.plots import DRAWN, bars, contact_sheet, curve, curves, descending, picture_figure, save

__all__ = [
    "DRAWN",
    "PATHS",
    "WRITTEN",
    "Picture",
    "bars",
    "completions",
    "contact_sheet",
    "curve",
    "curves",
    "descending",
    "filters",
    "grid",
    "linear",
    "pairs",
    "picture_figure",
    "reconstructions",
    "save",
    "walks",
    "write",
]
