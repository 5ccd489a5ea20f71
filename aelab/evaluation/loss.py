"""The loss of a recipe on a whole split, and the metrics beside it: means over images, independent of the batch size."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from aelab.data import Split
from aelab.errors import UserError
from aelab.evaluation.reconstruction import error_metrics, squared_errors
from aelab.progress_bar import Advance, silent
from aelab.recipe import Autoencodes, Classifies, HasPosterior, Recipe

BLOCK = 50  # images at once; fixed, as a sampled loss draws its noise block by block
ACTIVE_VARIANCE = 0.01  # Burda et al. 2016
SEED = 20_14  # of the noise in every evaluation, so that two evaluations differ only in the weights


@contextmanager
def eval_mode(recipe: Recipe, seed: int = SEED) -> Iterator[None]:
    """Evaluation mode, without gradients and with noise fixed by `seed`. Mode and random state are restored afterwards."""
    was_training = recipe.training
    device = next(recipe.parameters()).device
    devices = [device] if device.type != "cpu" else []
    recipe.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices, device_type=device.type if devices else "cuda"):
            torch.manual_seed(seed)
            yield
    finally:
        recipe.train(was_training)


def evaluate_loss(recipe: Recipe, split: Split, advance: Advance = silent) -> dict[str, float]:
    """The loss and its terms, means over the images of `split`; with a reconstruction mse, sse and psnr, with classes error.

    A term that is an mse itself (NAME_mse) gets its sse and psnr too. A term called mse or error gives way to the one measured
    here. Raises UserError for an empty split.
    """
    if not len(split):
        raise UserError("there are no images to evaluate on.")
    totals: defaultdict[str, float] = defaultdict(float)
    measured: defaultdict[str, float] = defaultdict(float)
    with eval_mode(recipe):
        for x, y in split.blocks(BLOCK):
            loss, parts = recipe.loss(x, y)
            for name, value in zip(("loss", *parts), torch.stack([loss, *parts.values()]).tolist(), strict=True):
                totals[name] += value * len(x)
            if isinstance(recipe, Autoencodes):
                measured["mse"] += float(squared_errors(x, recipe.decode(recipe.encode(x))).sum())
            if isinstance(recipe, Classifies):
                measured["error"] += 100 * float((recipe.classify(x).argmax(1) != y).sum())
            advance(len(x))
    means = {name: total / len(split) for name, total in (totals | measured).items()}
    for name in [name for name in means if name.endswith("mse")]:
        means |= error_metrics(means[name], split.images[0].numel(), name.removesuffix("mse"))
    return means


def active_units(recipe: HasPosterior, x: Tensor) -> int:
    """The number of dimensions of the code whose posterior mean has a variance above 0.01 over images x (N, C, H, W)."""
    return int((torch.var(recipe.posterior(x)[0], dim=0) > ACTIVE_VARIANCE).sum())


def reconstruct(recipe: Recipe, x: torch.Tensor) -> torch.Tensor:
    """decode(encode(x)) of images x (N, C, H, W), on the CPU. Raises UserError if the recipe does not reconstruct."""
    if not isinstance(recipe, Autoencodes):
        raise UserError(f"{type(recipe).__name__} does not reconstruct images.", code=2)
    with eval_mode(recipe):
        return recipe.decode(recipe.encode(x.to(next(recipe.parameters()).device))).cpu()
