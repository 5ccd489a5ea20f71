"""The figures by name, for `aelab show`: which there are, and which of them a run can make."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from aelab.errors import UserError, did_you_mean, similar
from aelab.figures.bounds import elbo, kl_per_dimension
from aelab.figures.code_size import error_by_code_size
from aelab.figures.codes import latent_space
from aelab.figures.decoding import manifold, traversals
from aelab.figures.game import animate_samples, game, minimax_and_non_saturating, samples_over_training
from aelab.figures.labels import error_by_labels
from aelab.figures.linear_plane import pca_plane
from aelab.figures.modes import digit_histogram
from aelab.figures.noise import denoising, first_layer_filters, psnr_by_noise
from aelab.figures.points import points, vector_field
from aelab.figures.reconstruction import reconstructions, samples
from aelab.figures.taxonomy import taxonomy
from aelab.figures.trained import TrainedRun, figure_name, lacking
from aelab.figures.walks import class_arithmetic, interpolation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Draw = Callable[..., "Figure"]  # of one run or more

FIGURES: dict[str, Draw] = {  # in the order of the lecture; the first line of a docstring says what is seen
    figure_name(draw): draw
    for draw in (
        *(pca_plane, reconstructions, error_by_code_size, latent_space),
        *(denoising, psnr_by_noise, first_layer_filters, error_by_labels),
        *(samples, elbo, kl_per_dimension, manifold, traversals, interpolation, class_arithmetic),
        *(digit_histogram, game, minimax_and_non_saturating, samples_over_training, points, vector_field, taxonomy),
    )
}
ANIMATIONS = {"samples-over-training": animate_samples}  # the figures that move, and what writes them as a GIF


def figure_function(name: str) -> Draw:
    """The function that draws a figure. Raises UserError if there is no figure of that name."""
    if name not in FIGURES:
        hint = did_you_mean(similar(name, list(FIGURES)))
        raise UserError(f"there is no figure '{name:.60}'.{hint}", "List them: aelab show --list", code=2)
    return FIGURES[name]


def summary(name: str) -> str:
    """What a figure shows, in one line."""
    return (FIGURES[name].__doc__ or "").partition("\n")[0]


def available(run: TrainedRun) -> list[str]:
    """The names of the figures that a run can make."""
    return [name for name, draw in FIGURES.items() if not lacking(draw, run)]
