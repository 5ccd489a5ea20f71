"""How likely images are under a model with codes: importance sampling from its posterior."""

import math
from collections.abc import Callable

import torch

from aelab.data import Split
from aelab.recipe import Weighs

IMAGES = 50  # at once
ROWS = 1000  # images x samples at once: what fits into the cache of a CPU


def importance_nll(recipe: Weighs, split: Split, samples: int, advance: Callable[[int], None]) -> dict[str, float]:
    """-log p(x) in nats, the mean over the images of `split`, with its standard error over images.

    log p(x) is estimated by log 1/S sum_s p(x, z_s) / q(z_s|x) with S samples from q(z|x) an image (Burda et al. 2016). Its mean
    is a lower bound that rises with S: the true figure is not above the one returned. Each image is observed once.
    """
    estimates = []
    for start in range(0, len(split), IMAGES):
        x = recipe.observe(split.batch(slice(start, start + IMAGES))[0])
        total = torch.full((len(x),), -math.inf, device=x.device)
        for done in range(0, samples, ROWS // IMAGES):
            weights = recipe.log_weights(x, min(ROWS // IMAGES, samples - done))  # (S, B)
            total = torch.logaddexp(total, torch.logsumexp(weights, 0))
        estimates.append((math.log(samples) - total).cpu().double())
        advance(start + len(x))
    nll = torch.cat(estimates)
    error = float(nll.std()) / math.sqrt(len(nll)) if len(nll) > 1 else math.nan
    return {"iwae_nll": float(nll.mean()), "iwae_nll_se": error}
