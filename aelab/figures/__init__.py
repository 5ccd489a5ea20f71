"""Pictures: grids of images as arrays, plots of numbers, and the figures of the lecture, each made of trained runs.

A figure of the lecture takes runs, such as `aelab.load` returns, and returns a matplotlib figure for a slide:

    aelab.figures.reconstructions(run)

Nothing here depends on the store or a terminal.
"""

from aelab.figures.bounds import elbo, kl_per_dimension
from aelab.figures.catalog import ANIMATIONS, FIGURES, available, figure_function, summary
from aelab.figures.code_size import error_by_code_size
from aelab.figures.codes import latent_space
from aelab.figures.decoding import manifold, traversals
from aelab.figures.game import animate_samples, game, minimax_and_non_saturating, samples_over_training
from aelab.figures.grids import (
    PATHS,
    VERMILION,
    WRITTEN,
    Picture,
    completion_grid,
    enlarged,
    filter_grid,
    grid,
    linear,
    pairs,
    plane_picture,
    reconstruction_grid,
    tiles,
    write,
)
from aelab.figures.labels import error_by_labels
from aelab.figures.linear_plane import pca_plane, toy_plane
from aelab.figures.modes import digit_histogram
from aelab.figures.noise import denoising, first_layer_filters, psnr_by_noise
from aelab.figures.plots import bars, contact_sheet, curve, curves, descending
from aelab.figures.points import plane, points, vector_field
from aelab.figures.reconstruction import reconstructions, samples
from aelab.figures.style import CLASS_COLOURS, DRAWN, encoded, save
from aelab.figures.sweeps import sweep_figure
from aelab.figures.taxonomy import taxonomy
from aelab.figures.walks import class_arithmetic, interpolation

__all__ = [
    "ANIMATIONS",
    "CLASS_COLOURS",
    "DRAWN",
    "FIGURES",
    "PATHS",
    "VERMILION",
    "WRITTEN",
    "Picture",
    "animate_samples",
    "available",
    "bars",
    "class_arithmetic",
    "completion_grid",
    "contact_sheet",
    "curve",
    "curves",
    "denoising",
    "descending",
    "digit_histogram",
    "elbo",
    "encoded",
    "enlarged",
    "error_by_code_size",
    "error_by_labels",
    "figure_function",
    "filter_grid",
    "first_layer_filters",
    "game",
    "grid",
    "interpolation",
    "kl_per_dimension",
    "latent_space",
    "linear",
    "manifold",
    "minimax_and_non_saturating",
    "pairs",
    "pca_plane",
    "plane",
    "plane_picture",
    "points",
    "psnr_by_noise",
    "reconstruction_grid",
    "reconstructions",
    "samples",
    "samples_over_training",
    "save",
    "summary",
    "sweep_figure",
    "taxonomy",
    "tiles",
    "toy_plane",
    "traversals",
    "vector_field",
    "write",
]
