"""The likelihood of images under a latent variable model, by importance sampling from its posterior."""

import math

import torch

from aelab.data import Split
from aelab.progress_bar import Advance, silent
from aelab.recipe import ImportanceWeighted

IMAGES = 50  # at once
ROWS = 1000  # images x samples at once, so that they fit into a CPU's cache


def importance_nll(
    recipe: ImportanceWeighted, split: Split, samples: int, advance: Advance = silent
) -> dict[str, float]:
    """-log p(x) in nats, the mean over the images of `split`, with two standard errors: over images, and of sampling z.

    log p(x) is estimated by log 1/S sum_s w_s with w_s = p(x, z_s) / q(z_s|x) and S samples of q(z|x) per image (Burda et al.
    2016). Its expectation is a lower bound that rises with S, so the true -log p(x) is not above the value returned. The second
    error is by the delta method: Var log w ~ sum w^2 / (sum w)^2 - 1/S per image. Each image is observed (binarised) once.
    """
    estimates, variances = [], []
    for start in range(0, len(split), IMAGES):
        x = recipe.observe(split.batch(slice(start, start + IMAGES))[0])
        total = torch.full((len(x),), -math.inf, device=x.device)
        squares = total
        for done in range(0, samples, ROWS // IMAGES):
            weights = recipe.log_weights(x, min(ROWS // IMAGES, samples - done))  # (S, B)
            total = torch.logaddexp(total, torch.logsumexp(weights, 0))
            squares = torch.logaddexp(squares, torch.logsumexp(2 * weights, 0))
        estimates.append((math.log(samples) - total).cpu().double())
        variances.append(((squares - 2 * total).exp() - 1 / samples).clamp(min=0).cpu().double())
        advance(len(x))
    nll, variance = torch.cat(estimates), torch.cat(variances)
    error = float(nll.std()) / math.sqrt(len(nll)) if len(nll) > 1 else math.nan
    sampling = math.sqrt(float(variance.sum())) / len(nll) if samples > 1 else math.nan
    return {
        "marginal_nll": float(nll.mean()),
        "marginal_nll_se": error,
        "marginal_nll_mc_se": sampling,
        "iwae_samples": float(samples),
        "marginal_nll_images": float(len(nll)),
    }


def independent_pixels(train: Split, test: Split) -> float:
    """-log p(x) in nats of binarised test images under independent Bernoulli pixels: the control of a likelihood.

    The probabilities are the means of the training images, with half a black and half a white image added. The value is the
    expectation over all binarisations.
    """
    p = (train.images.flatten(1).sum(0, dtype=torch.float64) / 255 + 0.5) / (len(train) + 1)
    grey = test.images.flatten(1).sum(0, dtype=torch.float64) / 255 / len(test)
    return float(-(grey * p.log() + (1 - grey) * (1 - p).log()).sum())
