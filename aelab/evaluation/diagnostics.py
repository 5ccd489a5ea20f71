"""Diagnostics of a trained model: what is wrong with it, which a falling loss does not show, and what to try.

One cause gives one sentence. docs/design.md lists the measurements that each threshold below was chosen by.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from aelab.data import Dataset
from aelab.evaluation.classifier import MIN_CLASS_SHARE
from aelab.evaluation.loss import active_units, eval_mode
from aelab.evaluation.reconstruction import LAPLACIAN, sharpness
from aelab.metrics import number
from aelab.recipe import Autoencodes, Generates, HasPosterior, ImportanceWeighted, Recipe

MAX_IMAGES = 1000  # validation images, and as many samples
BATCH = 250  # images at once
MAX_SIDE = 32  # pixels; larger images are scaled down to this before they are compared
MIN_STEPS = 300  # of training, for a diagnosis
OUTPUT_MARGIN = 1.0  # how far outputs may leave [0, 1]; PCA, the best linear decoder, reaches -0.54 and 1.47
CONSTANT_VARIANCE = 0.01  # of the real images' variance: images with less are all the same
COLLAPSED_KL = 1.0  # nats: a posterior with less is ignored; 0.16 with beta 20, at least 2.2 after one good epoch
LOW_VARIANCE = 0.25  # of the real images': 0.12 after ten epochs, 0.55 after thirty, 0.33 with a code of two dimensions
BLURRED_SHARPNESS = 0.5  # of the real images' sharpness: a VAE has 0.05 to 0.24, one real image repeated 0.85
DUPLICATE_DISTANCE = 0.25  # of the median distance to the nearest real image: nearer images count as the same
MIN_DISTINCT_IMAGES = 100  # samples that show fewer different images repeat themselves; real images never do
MAX_LABELLED_IMAGES = 10_000  # training images that the class of a sample is found by
MAX_LABELLED_BYTES = 1 << 28  # of those images
MIN_ACCURACY = 0.9  # on validation images: a less accurate classifier does not tell which classes are missing
MIN_VALIDATION_IMAGES = 10  # in all and per class, for a statement about samples
MAX_CLASSES_NAMED = 9  # of the missing ones
SATURATED_GAP = 0.9  # D(x) - D(G(z)): no sample deceives a discriminator with more
GUESSING_SHARE = 0.9  # of the error of guessing among equally frequent classes
OVERFITTING_RISE = 0.02  # of the best validation
OTHER_AIMS = {"test/denoised_mse", "test/pseudo_nll"}  # of models that reconstruct, but are trained for something else
PCA_FACTOR = 1.05  # times the error of PCA
BAD_IN_ALL = (
    "hardly trained",
    "posterior collapse",
    "under-trained",
    "dead code",
    "output range",
)  # in what it draws, too

RETRY = "try another --seed or a smaller --lr"


@dataclass
class Diagnosis:
    """Faults of a model, and notes about it that are not faults; one sentence each."""

    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The faults in one line; "good" if there are none."""
        return "; ".join(self.faults) or "good"


def diagnose(
    recipe: Recipe, data: Dataset, validation: Mapping[str, float], history: tuple[float, float], steps: int
) -> Diagnosis:
    """The diagnosis of the kept weights.

    `history` is the monitored validation metric at its best and at the end, and `steps` the number of training steps. After
    fewer than MIN_STEPS steps that is the only fault reported, as all others may come from it.
    """
    if steps < MIN_STEPS:
        after = f"after {steps} step{'s' * (steps != 1)}"
        return Diagnosis([f"hardly trained: {after} nothing is proven, good or bad; train longer"])
    found = Diagnosis()
    with eval_mode(recipe):
        _check_codes(found, recipe, data)
        if isinstance(recipe, Generates) and not found.faults:
            found.faults += _check_samples(recipe, data)
    found.faults += _check_metrics(data, validation, history, bool(found.faults))
    return found


def _check_codes(found: Diagnosis, recipe: Recipe, data: Dataset) -> None:
    """Adds to `found`: posterior collapse, unused dimensions, constant reconstructions, outputs out of range."""
    x, _ = data.val.batch(slice(0, MAX_IMAGES))
    back = recipe.decode(recipe.encode(x)) if isinstance(recipe, Autoencodes) else None
    alike = back is not None and _variance(back) < CONSTANT_VARIANCE * _variance(x)
    if isinstance(recipe, HasPosterior):
        used, size, kl = active_units(recipe, x), recipe.posterior(x[:1])[0].numel(), _kl(recipe, x)
        if kl < COLLAPSED_KL or alike:
            weight = f" (--beta is {recipe.beta:g})" if hasattr(recipe, "beta") else ""
            found.faults.append(
                f"posterior collapse: the decoder ignores the code (KL {kl:.2g} nats, {used} of {size} dimensions used); "
                f"try more --epochs or less weight on the KL term{weight}"
            )
        elif used < size:
            found.notes.append(f"{used} of {size} dimensions of the code are used; the rest follow the prior")
    elif alike:
        found.faults.append("dead code: all reconstructions are alike; try a smaller --lr")
    if back is not None and (float(back.min()) < -OUTPUT_MARGIN or float(back.max()) > 1 + OUTPUT_MARGIN):
        reach = f"reconstructions go from {float(back.min()):.2f} to {float(back.max()):.2f}, pixels from 0 to 1"
        found.faults.append(f"output range: {reach}; try a smaller --lr or more --epochs")


def _kl(recipe: HasPosterior, x: Tensor) -> float:
    """KL(q(z|x) || p(z)) in nats, the mean over images x (N, C, H, W)."""
    mu, log_var = recipe.posterior(recipe.observe(x) if isinstance(recipe, ImportanceWeighted) else x)
    return float((mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x))


def _check_samples(recipe: Generates, data: Dataset) -> list[str]:
    """The faults of samples, at most one: they are all alike, blurred, near-duplicates, or lack classes."""
    x = torch.cat([_shrunk(part) for part in torch.split(data.val.batch(slice(0, MAX_IMAGES))[0], BATCH)])
    if len(x) < MIN_VALIDATION_IMAGES or not _variance(x):
        return []
    samples = torch.cat(
        [_shrunk(recipe.decode(recipe.sample_prior(BATCH)).clamp(0, 1)) for _ in range(MAX_IMAGES // BATCH)]
    )
    varied = _variance(samples) / _variance(x)
    if varied < CONSTANT_VARIANCE:
        return [f"mode collapse: all samples are one image; {RETRY}"]
    has_edges = min(x.shape[2:]) >= LAPLACIAN
    blurred = has_edges and float(sharpness(samples).mean()) < BLURRED_SHARPNESS * float(sharpness(x).mean())
    longer = "try more --epochs" + (" or --beta 1" if getattr(recipe, "beta", 1) > 1 else "")
    how = f"vary {100 * varied:.0f} % as much as images do"
    if varied < LOW_VARIANCE:
        return [
            f"under-trained: samples are blurred and {how}; {longer}"
            if blurred
            else f"mode collapse: samples {how}; {RETRY}"
        ]
    if (share := _duplicate_share(samples, x, varied)) > max(1 / MIN_DISTINCT_IMAGES, 2 * _duplicate_share(x, x, 1.0)):
        return [f"mode collapse: {len(samples):,} samples show about {1 / share:.0f} different images; {RETRY}"]
    if not (missing := _missing_classes(samples, x, data)):
        return []
    names = ", ".join(
        [data.classes[k] for k in missing[:MAX_CLASSES_NAMED]] + ["..."] * (len(missing) > MAX_CLASSES_NAMED)
    )
    lost = f"{len(missing)} of {len(data.classes)} classes hardly occur among the samples ({names})"
    if blurred and 2 * len(missing) <= len(data.classes):  # a blurred image is easily taken for another class
        return [f"under-trained: samples are blurred, and {lost}; {longer}"]
    return [f"mode collapse: {lost}; {RETRY}"]


def _duplicate_share(images: Tensor, real: Tensor, varied: float) -> float:
    """The share of pairs of images that are nearly the same.

    Such images are nearer than DUPLICATE_DISTANCE of the median distance from a real image to its nearest neighbour. The
    threshold is scaled down where images vary less than real ones, as blurred ones do: `varied` is the ratio of the variances.
    """
    between = torch.cdist(real.flatten(1), real.flatten(1)).fill_diagonal_(math.inf)
    near = DUPLICATE_DISTANCE * math.sqrt(min(1.0, varied)) * float(between.min(1).values.median())
    n = len(images)
    pairs = int((torch.cdist(images.flatten(1), images.flatten(1)) <= near).sum()) - n
    return pairs / max(1, n * (n - 1))


def _missing_classes(samples: Tensor, x: Tensor, data: Dataset) -> list[int]:
    """The classes that validation images x have and samples hardly have, by the nearest labelled training image.

    Empty where the nearest image predicts the classes of the validation images badly.
    """
    known = int((data.train.labels >= 0).sum())
    if len(data.classes) < 2 or known < len(data.classes):
        return []
    most = max(len(data.classes), MAX_LABELLED_BYTES // data.train.images[0].numel())
    labelled = data.train.labelled(min(known, MAX_LABELLED_IMAGES, most), 0)
    real = torch.cat([_shrunk(part) for part in torch.split(labelled.images, BATCH)])
    labels, truth = labelled.labels.cpu(), data.val.labels[: len(x)].cpu()

    def classes(images: Tensor) -> Tensor:
        nearest = [torch.cdist(part.flatten(1), real.flatten(1)).argmin(1) for part in torch.split(images, BATCH)]
        return labels[torch.cat(nearest)]

    seen = classes(x)
    if not float((seen == truth).float().mean()) >= MIN_ACCURACY:
        return []
    there, made = (torch.bincount(found, minlength=len(data.classes)) for found in (seen, classes(samples)))
    gone = (there >= MIN_VALIDATION_IMAGES) & (made / len(samples) < MIN_CLASS_SHARE * there / len(x))
    return torch.nonzero(gone).flatten().tolist()


def _shrunk(images: Tensor) -> Tensor:
    """Images (N, C, H, W) on the CPU, in [0, 1], scaled down to at most MAX_SIDE pixels a side."""
    images = images.float() / 255 if images.dtype == torch.uint8 else images
    height, width = images.shape[2:]
    if max(height, width) > MAX_SIDE:
        images = F.adaptive_avg_pool2d(images, (min(height, MAX_SIDE), min(width, MAX_SIDE)))
    return images.cpu()


def _check_metrics(
    data: Dataset, validation: Mapping[str, float], history: tuple[float, float], collapsed: bool
) -> list[str]:
    """The faults that validation metrics show: of a classifier, of the course of training and, unless G collapsed, of D."""
    found = []
    real, fake = validation.get("d_real", math.nan), validation.get("d_fake", math.nan)
    if real - fake > SATURATED_GAP and not collapsed:
        found.append(
            f"D is saturated: D(x) = {real:.2f}, D(G(z)) = {fake:.2f}, so G learns little; "
            "try a smaller --lr or more noise on what D sees"
        )
    if validation.get("error", 0.0) > GUESSING_SHARE * 100 * (1 - 1 / max(2, len(data.classes))):
        found.append(
            f"no better than guessing: {validation['error']:.0f} % of the validation images are misclassified; "
            "try a smaller --lr or more --epochs"
        )
    best, last = history
    if last - best > OVERFITTING_RISE * abs(best):
        found.append(
            f"overfitting: validation rose from {best:.4g} at its best to {last:.4g} at the end; the best weights are kept, "
            "so try --patience or more images"
        )
    return found


def diagnose_test(metrics: Mapping[str, float], after_training: str = "") -> list[str]:
    """The faults that test metrics show: an error above PCA's, and classes that the classifier misses among the samples.

    Empty where the diagnosis `after_training` already names a cause of both.
    """
    if after_training.startswith(BAD_IN_ALL):
        return []
    found = []
    error, pca = metrics.get("test/mse", math.nan), metrics.get("test/pca_mse", math.nan)
    other_aim = OTHER_AIMS & metrics.keys()
    if pca > 0 and error > PCA_FACTOR * pca and not other_aim:  # a PCA with as many components as pixels has no error
        found.append(f"worse than PCA: mse {number(error)} against {number(pca)}; try more --epochs or another --lr")
    made, there = metrics.get("test/classes", math.nan), metrics.get("test/real_classes", math.nan)
    collapsed = not metrics.get("test/kl", math.inf) >= COLLAPSED_KL  # then that is the cause
    if (
        made < there
        and not collapsed
        and not after_training.startswith("mode collapse")
        and metrics.get("test/classifier_error", 100.0) <= 100 * (1 - MIN_ACCURACY)
    ):
        lost = f"the classifier sees {made:.0f} of {there:.0f} classes among the samples"
        blurred = metrics.get("test/sharpness", math.nan) < BLURRED_SHARPNESS
        under = f"under-trained: samples are blurred, and {lost}; try more --epochs"
        found.append(under if blurred else f"mode collapse: {lost}; {RETRY}")
    return found


def _variance(images: Tensor) -> float:
    """The variance of images (N, ...), summed over pixels."""
    return float(torch.var(images.flatten(1), dim=0, correction=0).sum())
