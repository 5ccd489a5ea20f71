"""Figures of a recipe on a whole split: weighted by image, the same whatever the batch size of the training was."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from aelab.console import Screen
from aelab.data import Dataset, Split
from aelab.metrics.classifier import STEPS, class_metrics, judge_of, shares
from aelab.metrics.likelihood import importance_nll
from aelab.metrics.reconstruction import error_metrics, pca_baseline, squared_errors
from aelab.problem import Problem
from aelab.recipe import Autoencodes, Classifies, Encodes, Explains, Generates, Infers, Recipe, Weighs

BLOCK = 250  # images at once; fixed, as a sampled loss draws its noise block by block
ACTIVE = 0.01
DRAWN = 5000  # samples whose classes are counted
SEED = 20_14  # of the noise in every evaluation, so that two of them differ only by the weights


@contextmanager
def at_rest(recipe: Recipe, seed: int = SEED) -> Iterator[None]:
    """Evaluation mode without gradients and with fixed noise; afterwards mode and random state are as before."""
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


def evaluate(recipe: Recipe, split: Split) -> dict[str, float]:
    """The loss and its terms and, where the recipe can, mse, sse and psnr or the error; means over the images of `split`.

    A term that is an mse itself (NAME_mse) gets its sse and psnr too.
    """
    if not len(split):
        raise Problem("there are no images to evaluate on.")
    totals: defaultdict[str, float] = defaultdict(float)
    with at_rest(recipe):
        for x, y in split.blocks(BLOCK):
            loss, parts = recipe.loss(x, y)
            for name, value in zip(("loss", *parts), torch.stack([loss, *parts.values()]).tolist(), strict=True):
                totals[name] += value * len(x)
            if isinstance(recipe, Autoencodes):
                totals["mse"] += float(squared_errors(x, recipe.decode(recipe.encode(x))).sum())
            if isinstance(recipe, Classifies):
                totals["error"] += 100 * float((recipe.classify(x).argmax(1) != y).sum())
    means = {name: total / len(split) for name, total in totals.items()}
    for name in [name for name in means if name.endswith("mse")]:
        means |= error_metrics(means[name], split.images[0].numel(), name.removesuffix("mse"))
    return means


def code_size(recipe: Recipe, split: Split) -> int:
    """The number of values in one code of a recipe that encodes."""
    assert isinstance(recipe, Encodes)
    with at_rest(recipe):
        return recipe.encode(split.batch(slice(0, 1))[0]).numel()


def active_units(recipe: Infers, x: Tensor) -> int:
    """Dimensions of the code whose posterior mean varies over images x by more than 0.01 (Burda et al. 2016)."""
    return int((torch.var(recipe.posterior(x)[0], dim=0) > ACTIVE).sum())


@dataclass(frozen=True)
class Classes:
    """What a classifier sees in samples: the share of each class (K,), the figures, and the classifier's SHA-256."""

    shares: Tensor
    figures: dict[str, float]
    classifier: str


def classes_of_samples(recipe: Recipe, data: Dataset, screen: Screen) -> Classes | None:
    """Which classes the samples of a recipe are of; None where it draws none, or the data have no classes."""
    if not (isinstance(recipe, Generates) and len(data.classes) > 1):
        return None
    with screen.progress(f"training the judge of {data.name}, once", STEPS) as bar:
        judge = judge_of(data, bar.update)
    with at_rest(recipe):
        drawn = torch.cat([recipe.decode(recipe.prior(BLOCK)) for _ in range(DRAWN // BLOCK)])
    share = shares(judge, drawn, len(data.classes))
    figures = {f"test/{name}": value for name, value in class_metrics(share).items()}
    return Classes(share, {**figures, "test/judge_error": judge.error}, judge.sha256)


def report(recipe: Recipe, data: Dataset, screen: Screen, samples: int = 0) -> dict[str, float]:
    """The test figures of a recipe, test/NAME, and beside them those of the PCA with as long a code, test/pca_NAME.

    With `samples`, a recipe that has a likelihood gets it estimated with so many importance samples an image.
    """
    figures = {f"test/{name}": value for name, value in evaluate(recipe, data.test).items()}
    if isinstance(recipe, Infers):
        with at_rest(recipe):
            figures["test/active_units"] = active_units(recipe, data.test.batch(slice(0, 1000))[0])
    if samples and isinstance(recipe, Weighs):
        with at_rest(recipe), screen.progress(f"likelihood, {samples} samples", len(data.test)) as bar:
            likelihood = importance_nll(recipe, data.test, samples, bar.update)
        figures |= {f"test/{name}": value for name, value in likelihood.items()}
    if isinstance(recipe, Autoencodes):
        density = "test/elbo" in figures and isinstance(recipe, Explains) and not recipe.binary
        baseline = pca_baseline(data.train, data.test, code_size(recipe, data.test), density)
        figures |= {f"test/pca_{name}": value for name, value in baseline.items()}
    return figures


def reconstruct(recipe: Recipe, x: torch.Tensor) -> torch.Tensor:
    """x (N, C, H, W) through the code and back, on the CPU. Raises Problem for a recipe that cannot."""
    if not isinstance(recipe, Autoencodes):
        raise Problem(f"{type(recipe).__name__} does not reconstruct images.", code=2)
    with at_rest(recipe):
        return recipe.decode(recipe.encode(x.to(next(recipe.parameters()).device))).cpu()
