"""The likelihood of images under a model: exact, by importance sampling from a posterior, or with an estimate of Z."""

import math

import torch
from torch import Tensor

from aelab.data import Split
from aelab.evaluation.reconstruction import LEVELS
from aelab.progress_bar import Advance, silent
from aelab.recipe import EnergyBased, ExactLikelihood, ImportanceWeighted

IMAGES = 50  # at once
ROWS = 1000  # images x samples at once, so that they fit into a CPU's cache
STEPS, CHAINS = 8000, 100  # of annealed importance sampling
EXACT, BOUND, ANNEALED = "exact", "bound", "AIS"  # how a marginal likelihood was obtained


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
    variance = torch.cat(variances)
    sampling = math.sqrt(float(variance.sum())) / len(variance) if samples > 1 else math.nan
    return {**_mean(torch.cat(estimates)), "marginal_nll_mc_se": sampling, "iwae_samples": float(samples)}


def exact_nll(recipe: ExactLikelihood, split: Split, advance: Advance = silent) -> dict[str, float]:
    """-log p(x) in nats, the mean over the images of `split`, with its standard error. Each image is observed once."""
    values = []
    for x, _ in split.blocks(IMAGES):
        values.append(-recipe.log_prob(recipe.observe(x)).cpu().double())
        advance(len(x))
    return _mean(torch.cat(values))


def annealed_nll(recipe: EnergyBased, split: Split, advance: Advance = silent) -> dict[str, float]:
    """F(x) + log Z in nats, the mean over the images of `split`, with the standard errors over images and of log Z.

    Z is the mean of the weights w of CHAINS chains (annealed importance sampling, Neal 2001; Salakhutdinov & Murray 2008). The
    mean of log Z is below the true one, so the value returned tends to be too low. The second error is by the delta method,
    Var log Z ~ Var w / (CHAINS mean(w)^2); `ais_effective` is the effective sample size (sum w)^2 / sum w^2: with few, neither
    can be trusted.
    """
    weights = recipe.log_partition(STEPS, CHAINS).cpu().double()
    log_z = float(torch.logsumexp(weights, 0)) - math.log(CHAINS)
    share = (weights - weights.max()).exp()
    error = float(share.std() / share.mean()) / math.sqrt(CHAINS)
    values = []
    for x, _ in split.blocks(IMAGES):
        values.append(recipe.free_energy(recipe.observe(x)).cpu().double() + log_z)
        advance(len(x))
    effective = float(share.sum().square() / share.square().sum())
    return {**_mean(torch.cat(values)), "marginal_nll_mc_se": error, "ais_effective": effective}


def _mean(values: Tensor) -> dict[str, float]:
    error = float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {
        "marginal_nll": float(values.mean()),
        "marginal_nll_se": error,
        "marginal_nll_images": float(len(values)),
    }


def bits_per_dim(nll: float, values: int, discrete: bool) -> float:
    """The bits for each of the `values` of an 8-bit image, from -log p(x) in nats: of a density, or `discrete` of its levels.

    A level is 1/256 wide, so 256^-values times the density, at its mean log over the level, is at most the probability of
    the image (Theis et al. 2016, equation 3).
    """
    return nll / math.log(2) / values + (0 if discrete else math.log2(LEVELS))


def independent_pixels(train: Split, test: Split) -> float:
    """-log p(x) in nats of binarised test images under independent Bernoulli pixels: the control of a likelihood.

    The probabilities are the means of the training images, with half a black and half a white image added. The value is the
    expectation over all binarisations.
    """
    p = (train.images.flatten(1).sum(0, dtype=torch.float64) / 255 + 0.5) / (len(train) + 1)
    grey = test.images.flatten(1).sum(0, dtype=torch.float64) / 255 / len(test)
    return float(-(grey * p.log() + (1 - grey) * (1 - p).log()).sum())
