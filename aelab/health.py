"""What ails a trained model, in plain words: what a loss that fell does not show."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from aelab.data import Dataset
from aelab.evaluation import active_units, at_rest
from aelab.recipe import Autoencodes, Generates, Infers, Recipe

IMAGES = 1000
MARGIN = 0.05  # beyond [0, 1] that an output may reach
MOSTLY = 0.9  # of the dimensions: with as many active, the posterior has not collapsed
ALIKE = 0.01  # of the images' variance: reconstructions with less are all the same
COLLAPSED = 0.4  # of the images' variance: samples with less have lost most of it
CERTAIN = 0.9  # D(x) - D(G(z)) of a discriminator that no forgery deceives
GUESSING = 0.9  # of the error of guessing among equally frequent classes
FEW = 300  # steps after which a model may still be as it was born
RISEN = 0.02  # of the best validation


def ailments(
    recipe: Recipe, data: Dataset, validation: Mapping[str, float], history: tuple[float, float], steps: int
) -> list[str]:
    """One line for each thing that is wrong with the kept weights; none if all is well.

    `history` is the validation's objective at its best and at the end; `steps` is how many were taken.
    """
    few = f" (after {steps} step{'s' * (steps > 1)} only)" if steps < FEW else ""
    return [line + few for line in _findings(recipe, data, validation, history)]


def _findings(
    recipe: Recipe, data: Dataset, validation: Mapping[str, float], history: tuple[float, float]
) -> list[str]:
    found = []
    with at_rest(recipe):
        x, _ = data.val.batch(slice(0, IMAGES))
        if isinstance(recipe, Infers):
            active, size = active_units(recipe, x), recipe.encode(x[:1]).numel()
            if active < MOSTLY * size:
                found.append(
                    f"posterior collapse: {active} of {size} dimensions of the code are active, the rest is noise"
                )
        if isinstance(recipe, Autoencodes):
            back = recipe.decode(recipe.encode(x))
            low, high = float(back.min()), float(back.max())
            if low < -MARGIN or high > 1 + MARGIN:
                found.append(f"output range: reconstructions go from {low:.2f} to {high:.2f}, pixels from 0 to 1")
            if _variance(back) < ALIKE * _variance(x):
                found.append("dead code: all reconstructions are alike")
        if isinstance(recipe, Generates):
            kept = _variance(recipe.decode(recipe.prior(len(x)))) / _variance(x)
            if kept < COLLAPSED:
                found.append(f"mode collapse: samples vary {100 * kept:.0f} % as much as images do")
    real, fake = validation.get("d_real", math.nan), validation.get("d_fake", math.nan)
    if real - fake > CERTAIN:
        found.append(f"D is saturated: D(x) = {real:.2f}, D(G(z)) = {fake:.2f}, so G learns little")
    if validation.get("error", 0.0) > GUESSING * 100 * (1 - 1 / max(2, len(data.classes))):
        found.append(f"no better than guessing: {validation['error']:.0f} % of the validation images are misclassified")
    best, last = history
    if last - best > RISEN * abs(best):
        found.append(
            f"validation rose from {best:.4g} at its best to {last:.4g} at the end: overfitting; the best weights are kept"
        )
    return found


def _variance(images: Tensor) -> float:
    """The variance of images (N, ...), summed over pixels."""
    return float(torch.var(images.flatten(1), dim=0, correction=0).sum())
