"""The metrics of a trained model on the test images, by everything that it can do.

Each function needs one capability and adds metrics of the model, of a baseline and of a control to the report, all computed
by the same functions from equally many images.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from aelab.data import Dataset, Split
from aelab.evaluation import generation
from aelab.evaluation.codes import code_metrics, random_projection
from aelab.evaluation.generation import Extractor
from aelab.evaluation.likelihood import (
    ANNEALED,
    BOUND,
    CHAINS,
    EXACT,
    STEPS,
    annealed_nll,
    bits_per_dim,
    exact_nll,
    importance_nll,
    independent_pixels,
)
from aelab.evaluation.loss import active_units, eval_mode, evaluate_loss
from aelab.evaluation.reconstruction import (
    LEVELS,
    PCA,
    filter_errors,
    fit_pca,
    noise_draws,
    pca_density,
    reconstruction_metrics,
)
from aelab.evaluation.report import Report
from aelab.evaluation.samples import samples
from aelab.figures import descending, reconstruction_grid
from aelab.progress_bar import Bar, progress_bar
from aelab.recipe import (
    Autoencodes,
    Classifies,
    Denoises,
    Encodes,
    EnergyBased,
    ExactLikelihood,
    Generates,
    HasLikelihood,
    HasPosterior,
    ImportanceWeighted,
    Recipe,
)

log = logging.getLogger(__name__)

BATCH = 250  # images at once
MIN_EFFECTIVE = 20  # chains of annealed importance sampling
IMAGES_PER_ROW = 8  # images in a row of a picture


def losses(report: Report, recipe: Recipe, data: Dataset, seen: Split) -> None:
    """The loss and its terms. Beside the error of a classifier: that of 1-NN on the labelled images, and of the largest class.

    `seen` holds the training images whose labels the training used.
    """
    with progress_bar("loss terms of the test images", len(data.test)) as bar:
        report.add(evaluate_loss(recipe, data.test, bar.advance))
    if isinstance(recipe, Classifies) and "test/error" in report.metrics:
        wrong, largest = 0, int(torch.bincount(seen.labels[seen.labels >= 0]).argmax())
        with progress_bar("nearest labelled images", len(data.test)) as bar:
            for x, y in data.test.blocks(1000):
                wrong += int((seen.labels.cpu()[generation.nearest(x, seen)[1]] != y.cpu()).sum())
                bar.advance(len(x))
        report.add({"error": 100 * wrong / len(data.test)}, "neighbour")
        report.add({"error": 100 * float((data.test.labels != largest).float().mean())}, "majority")


def labelled(recipe: Recipe, data: Dataset, seed: int) -> Split:
    """The training images whose labels a training with this seed used: with `--labels N` those N, drawn again, else all."""
    labels = {phase.labels for phase in recipe.phases(1)} - {0} if isinstance(recipe, Classifies) else set()
    return data.train.labelled(labels.pop(), seed) if labels else data.train


def noise(report: Report, recipe: Denoises, data: Dataset) -> None:
    """The baseline and the control of denoising: the best linear filter for the same noise, and the noisy images themselves."""
    assert isinstance(recipe, Recipe)
    total = noise_draws(data.train) * len(data.train) + len(data.test)
    with progress_bar("linear filter", total) as bar, eval_mode(recipe):
        for of, metrics in zip(
            ("linear", "nothing"),
            filter_errors(data.train, data.test, recipe.corrupt, BATCH, bar.advance),
            strict=True,
        ):
            report.add(metrics, of)


def components(report: Report, recipe: Encodes, data: Dataset) -> PCA:
    """The PCA with as many components as a code has values, or fewer if there are not that many."""
    assert isinstance(recipe, Recipe)
    with eval_mode(recipe):
        size = recipe.encode(data.test.batch(slice(0, 1))[0]).numel()
    with progress_bar(f"PCA of {len(data.train):,} training images", 1) as bar:
        pca = fit_pca(data.train, size)
        bar.update(1)
    found = len(pca.components)
    report.tags["aelab.pca_components"] = str(found)
    if pca.whole:
        report.notes.append(
            f"a PCA with {found} components, as many as an image has values, reconstructs every image exactly"
        )
    elif found < size:
        report.notes.append(
            f"the PCA has {found} components, not {size}: {len(data.train):,} training images have no more"
        )
    return pca


def reconstruction(report: Report, recipe: Autoencodes, data: Dataset, pca: PCA, batch_size: int = BATCH) -> None:
    """Errors of reconstructions, beside those of the PCA of equal size and of the mean image; pictures of the best and worst."""
    assert isinstance(recipe, Recipe)
    mean = data.train.images.float().mean(0) / 255
    bar_of = progress_bar("reconstructions of the test images", 3 * len(data.test))
    with bar_of as bar, eval_mode(recipe):
        metrics, errors = reconstruction_metrics(
            data.test, lambda x: recipe.decode(recipe.encode(x)), batch_size, bar.advance
        )
        report.add(metrics)
        report.pictures["test-reconstructions"] = reconstruction_grid(recipe, data.test.showcase(32))
        order = errors.argsort()
        chosen = torch.cat([order[:IMAGES_PER_ROW], order[-IMAGES_PER_ROW:]]).to(data.test.images.device)
        report.pictures["test-best-worst"] = reconstruction_grid(recipe, data.test.batch(chosen)[0], IMAGES_PER_ROW)
        report.add(reconstruction_metrics(data.test, pca.reconstruct, batch_size, bar.advance)[0], "pca")
        report.add(reconstruction_metrics(data.test, mean.expand_as, batch_size, bar.advance)[0], "mean")


def codes(report: Report, recipe: Encodes, data: Dataset, seen: Split, pca: PCA, batch_size: int = BATCH) -> None:
    """What codes say about classes, beside PCA codes and random projections of equal size; active units and KL of a posterior.

    Neighbours and probes use the labels of `seen` only, those that the training used.
    """
    assert isinstance(recipe, Recipe)
    with eval_mode(recipe):
        size = recipe.encode(data.test.batch(slice(0, 1))[0]).numel()
    projection = torch.from_numpy(random_projection(data.test.images[0].numel(), size))
    if len(seen) < len(data.train):
        report.notes.append(f"neighbours and probes of codes use the {len(seen):,} labels of the training")
    images = len(seen) + len(data.test)
    bar_of = progress_bar("codes of the test images", 6 * images)
    with bar_of as bar, eval_mode(recipe):
        kinds = {
            "": lambda x: recipe.encode(x).flatten(1).cpu(),
            "pca": pca.encode,
            "random": lambda x: x.flatten(1).cpu().double() @ projection,
        }
        for of, encode in kinds.items():
            parts = [
                (_codes(split, encode, batch_size, bar), split.labels.cpu().numpy()) for split in (seen, data.test)
            ]
            report.add(code_metrics(*parts[0], *parts[1]), of)
            bar.advance(images)
        if isinstance(recipe, HasPosterior):
            report.add({"active_units": active_units(recipe, data.test.batch(slice(0, 1000))[0])})
            kl = report.lists["test-kl"] = _kl_by_dimension(recipe, data.test, batch_size)
            report.pictures["test-kl"] = descending(kl, "KL of a dimension of the code, nats")


def _codes(split: Split, encode: Any, batch_size: int, bar: Bar) -> Any:
    found = []
    for x, _ in split.blocks(batch_size):
        found.append(encode(x).double())
        bar.advance(len(x))
    return torch.cat(found).numpy()


def _kl_by_dimension(recipe: HasPosterior, split: Split, batch_size: int) -> list[float]:
    """KL(q(z_d|x) || p(z_d)) of each dimension in nats, the mean over the images of a split."""
    total: Any = 0
    for x, _ in split.blocks(batch_size):
        mu, log_var = recipe.posterior(recipe.observe(x) if isinstance(recipe, ImportanceWeighted) else x)
        total = total + (mu**2 + log_var.exp() - 1 - log_var).double().sum(0) / 2
    return (total / len(split)).tolist()  # type: ignore[no-any-return]


def likelihood(
    report: Report, recipe: Recipe, data: Dataset, pca: PCA | None, samples: int, images: int | None
) -> None:
    """The likelihood, if there is one, beside independent pixels or probabilistic PCA.

    `images` test images are used, evenly spaced, or all; baseline and control use the same ones. The tag aelab.marginal_nll
    says how the likelihood was obtained; without `samples` none that needs sampling is computed. Bits per dimension are those
    of the marginal likelihood or, where there is none, of the ELBO.
    """
    if not isinstance(recipe, HasLikelihood):
        return
    test = spread(data.test, images or len(data.test))
    how = what = ""
    nll: Callable[..., dict[str, float]] | None = None
    if isinstance(recipe, ExactLikelihood):
        how, what, nll = EXACT, "exact", partial(exact_nll, recipe)
    elif isinstance(recipe, ImportanceWeighted) and not samples:
        report.notes.append("the likelihood was not estimated, as that takes sampling; --samples 500 does it")
    elif isinstance(recipe, EnergyBased) and not samples:
        report.notes.append("the likelihood was not estimated, as that takes long Gibbs chains; leave out --plain")
    elif isinstance(recipe, ImportanceWeighted):
        how, what = BOUND, f"{samples:,} importance samples for each of {len(test):,} test images"
        nll = partial(importance_nll, recipe, samples=samples)
        log.info(f"likelihood: {what} (fewer: --samples, --images)")
    elif isinstance(recipe, EnergyBased):
        how, what = ANNEALED, f"log Z by annealed importance sampling, {CHAINS} chains of {STEPS:,} steps"
        nll = partial(annealed_nll, recipe)
    if nll:
        with eval_mode(recipe), progress_bar("likelihood", len(test)) as bar:
            report.add(nll(test, advance=bar.advance))
        report.notes.append(f"likelihood: {what}")
        if recipe.binary and data.test.images.shape[1] > 1:
            report.notes.append("the likelihood is of binary values, drawn with the colour values as probabilities")
        kind = "binary" if recipe.binary else "levels" if recipe.discrete else "grey"
        report.tags |= {"aelab.marginal_nll": how, "aelab.likelihood": kind}
        if report.metrics.get("test/ais_effective", math.inf) < MIN_EFFECTIVE:
            report.notes.append("fewer than 20 chains count in log Z: the likelihood and its errors cannot be trusted")
    values = data.test.images[0].numel()
    for name, split, sign in (("elbo", data.test, 1), ("marginal_nll", test, -1)):
        if f"test/{name}" not in report.metrics:
            continue
        if recipe.binary:
            report.add({name: -sign * independent_pixels(data.train, split)}, "pixels")
            continue
        report.add({"bits_per_dim": bits_per_dim(-sign * report.metrics[f"test/{name}"], values, recipe.discrete)})
        if pca and (density := pca_density(pca, split)):
            log_p = density["elbo"] - recipe.discrete * values * math.log(LEVELS)
            report.add({name: sign * log_p, "bits_per_dim": bits_per_dim(-log_p, values, recipe.discrete)}, "pca")


def spread(split: Split, n: int) -> Split:
    """n evenly spaced images of a split; the whole split if it has no more."""
    if n >= len(split):
        return split
    chosen = torch.linspace(0, len(split) - 1, n).long().to(split.images.device)
    return replace(split, images=split.images[chosen], labels=split.labels[chosen])


def measure(
    recipe: Recipe,
    data: Dataset,
    *,
    draws: int = 500,
    images: int | None = None,
    seed: int = 0,
    batch_size: int = BATCH,
    extractor: Extractor | None = None,
    plain: bool = False,
) -> Report:
    """The report on a model with all metrics that it can have.

    `draws` is the number of importance samples per image for a likelihood, 0 for none, and `images` the number of test images
    that it is computed for, None for all. `seed` is that of the training, which drew its labels. `extractor` adds distances in
    its features to those in the classifier's. `plain` leaves out all but loss terms, reconstructions and likelihood.
    """
    report = Report()
    seen = labelled(recipe, data, seed)
    losses(report, recipe, data, seen)
    pca = None
    if isinstance(recipe, Denoises) and "test/denoised_mse" in report.metrics:
        noise(report, recipe, data)
    if isinstance(recipe, Encodes) and (not plain or isinstance(recipe, (Autoencodes, HasLikelihood))):
        pca = components(report, recipe, data)
        if isinstance(recipe, Autoencodes):
            reconstruction(report, recipe, data, pca, batch_size)
        if not plain:
            codes(report, recipe, data, seen, pca, batch_size)
    likelihood(report, recipe, data, pca, draws, images)
    if isinstance(recipe, Generates) and not plain:
        samples(report, recipe, data, extractor)
    return report
