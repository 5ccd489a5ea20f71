"""What a finished model can be judged by, on the test images: figures with a baseline and a control beside each, and pictures.

Each function is asked for one capability. A figure is called test/NAME, that of a baseline or control test/WHOSE_NAME (see
`metrics.BASELINES` and `metrics.CONTROLS`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aelab import pictures
from aelab.console import Screen
from aelab.data import Dataset, Split
from aelab.evaluation import active_units, at_rest, evaluate
from aelab.metrics import BASELINES, CONTROLS, against, definition, generation
from aelab.metrics.classifier import STEPS, Judge, class_figures, judge_of, shares
from aelab.metrics.codes import code_figures, random_projection
from aelab.metrics.generation import Extractor
from aelab.metrics.likelihood import importance_nll, independent_pixels
from aelab.metrics.reconstruction import PCA, filter_errors, fit_pca, pca_density, reconstruction_figures
from aelab.metrics.references import pixel_figures, real_and_gaussian, references
from aelab.recipe import Autoencodes, Classifies, Denoises, Encodes, Explains, Generates, Infers, Recipe, Weighs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 250  # images at once
SHOWN = 8  # images in a row of a picture


@dataclass
class Report:
    """Figures by name, pictures by name, lists of figures by name, and tags that say what they were made with."""

    figures: dict[str, float] = field(default_factory=dict)
    lists: dict[str, list[float]] = field(default_factory=dict)
    pictures: "dict[str, pictures.Picture | Figure]" = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def add(self, figures: Mapping[str, float], of: str = "") -> None:
        """Takes figures of the model or, with `of`, of a baseline or control."""
        self.figures |= {f"test/{of}_{name}" if of else f"test/{name}": value for name, value in figures.items()}

    def under(self, changed: Mapping[str, object]) -> "Report":
        """The same, named after the options that were changed: test/NAME-VALUE/mse."""
        parts = [f"{name}-{value}" for name, value in changed.items()]
        figures = {
            name.replace("test/", "/".join(["test", *parts, ""]), 1): value for name, value in self.figures.items()
        }
        return Report(
            figures,
            {"-".join([name, *parts]): values for name, values in self.lists.items()},
            {"-".join([name, *parts]): picture for name, picture in self.pictures.items()},
            self.tags,
        )

    def table(self) -> list[dict[str, object]]:
        """One row a metric of the model: its value, that of its baseline and of its control, the unit, and what those are."""
        rows = []
        for metric, value in self.figures.items():
            if against(metric)[0]:
                continue
            row: dict[str, object] = {"metric": metric, "value": value}
            split, _, name = metric.rpartition("/")
            names = []
            for column, known in (("baseline", BASELINES), ("control", CONTROLS)):
                there = [(label, f"{split}/{of}_{name}") for of, label in known.items()]
                label, found = next(((label, key) for label, key in there if key in self.figures), ("-", ""))
                row[column] = self.figures.get(found)
                names.append(label)
            row["unit"] = entry.unit if (entry := definition(metric)) else ""
            row["baseline / control"] = " / ".join(names) if names != ["-", "-"] else ""
            rows.append(row)
        return rows


def losses(report: Report, recipe: Recipe, data: Dataset, seed: int) -> None:
    """The loss and its terms; of a classifier beside its error that of the nearest labelled image and of the largest class."""
    report.add(evaluate(recipe, data.test))
    if isinstance(recipe, Classifies) and "test/error" in report.figures:
        labels = {phase.labels for phase in recipe.phases(1)} - {0}
        seen = data.train.labelled(labels.pop(), seed) if labels else data.train
        wrong, largest = 0, int(torch.bincount(seen.labels[seen.labels >= 0]).argmax())
        for x, y in data.test.blocks(1000):
            wrong += int((seen.labels.cpu()[generation.nearest(x, seen)[1]] != y.cpu()).sum())
        report.add({"error": 100 * wrong / len(data.test)}, "neighbour")
        report.add({"error": 100 * float((data.test.labels != largest).float().mean())}, "majority")


def noise(report: Report, recipe: Denoises, data: Dataset, screen: Screen) -> None:
    """Beside the errors of denoised images those of the best linear filter for the same noise, and of doing nothing."""
    assert isinstance(recipe, Recipe)
    with screen.progress("the linear filter", 1), at_rest(recipe):
        for of, figures in zip(
            ("linear", "nothing"), filter_errors(data.train, data.test, recipe.spoil, BATCH), strict=True
        ):
            report.add(figures, of)


def reconstruction(
    report: Report, recipe: Autoencodes, data: Dataset, pca: PCA, screen: Screen, batch_size: int = BATCH
) -> None:
    """Errors of reconstructions, those of the PCA of equal size and of the mean image; the best and the worst in a picture."""
    assert isinstance(recipe, Recipe)
    mean = data.train.images.float().mean(0) / 255
    with screen.progress("reconstructions of the test images", 3) as bar, at_rest(recipe):
        figures, errors = reconstruction_figures(data.test, lambda x: recipe.decode(recipe.encode(x)), batch_size)
        report.add(figures)
        report.pictures["test-reconstructions"] = pictures.reconstructions(recipe, data.test.showcase(32))
        order = errors.argsort()
        chosen = torch.cat([order[:SHOWN], order[-SHOWN:]]).to(data.test.images.device)
        report.pictures["test-best-worst"] = pictures.reconstructions(recipe, data.test.batch(chosen)[0], SHOWN)
        bar.update(1)
        if len(pca.components) < pca.components.shape[1]:  # as long a code as an image holds it whole
            report.add(reconstruction_figures(data.test, pca.reconstruct, batch_size)[0], "pca")
        bar.update(2)
        report.add(reconstruction_figures(data.test, mean.expand_as, batch_size)[0], "mean")


def codes(report: Report, recipe: Encodes, data: Dataset, pca: PCA, screen: Screen, batch_size: int = BATCH) -> None:
    """What codes know of classes, beside PCA codes and random projections of equal size; of a posterior its units and KL."""
    assert isinstance(recipe, Recipe)
    dimension = len(pca.components)
    projection = torch.from_numpy(random_projection(pca.components.shape[1], dimension))
    with screen.progress("codes of the test images", 3) as bar, at_rest(recipe):
        kinds = {
            "": lambda x: recipe.encode(x).flatten(1).cpu(),
            "pca": pca.encode,
            "random": lambda x: x.flatten(1).cpu().double() @ projection,
        }
        for number, (of, encode) in enumerate(kinds.items()):
            parts = [
                (_codes(split, encode, batch_size), split.labels.cpu().numpy()) for split in (data.train, data.test)
            ]
            report.add(code_figures(*parts[0], *parts[1]), of)
            bar.update(number + 1)
        if isinstance(recipe, Infers):
            report.add({"active_units": active_units(recipe, data.test.batch(slice(0, 1000))[0])})
            kl = report.lists["test-kl"] = _kl_by_dimension(recipe, data.test, batch_size)
            report.pictures["test-kl"] = pictures.descending(kl, "KL of a dimension of the code, nats")


def _codes(split: Split, encode: Any, batch_size: int) -> Any:
    return torch.cat([encode(x).double() for x, _ in split.blocks(batch_size)]).numpy()


def _kl_by_dimension(recipe: Infers, split: Split, batch_size: int) -> list[float]:
    """KL(q(z_d|x) || p(z_d)) in nats of each dimension, the mean over images."""
    total: Any = 0
    for x, _ in split.blocks(batch_size):
        mu, log_var = recipe.posterior(recipe.observe(x) if isinstance(recipe, Weighs) else x)
        total = total + (mu**2 + log_var.exp() - 1 - log_var).double().sum(0) / 2
    return (total / len(split)).tolist()  # type: ignore[no-any-return]


def likelihood(report: Report, recipe: Recipe, data: Dataset, pca: PCA | None, samples: int, screen: Screen) -> None:
    """The importance-weighted likelihood where there is one, beside independent pixels or probabilistic PCA."""
    if not isinstance(recipe, Explains):
        return
    if samples and isinstance(recipe, Weighs):
        with at_rest(recipe), screen.progress(f"likelihood, {samples} samples", len(data.test)) as bar:
            report.add(importance_nll(recipe, data.test, samples, bar.update))
    if recipe.binary:
        of, log_p = "pixels", -independent_pixels(data.train, data.test)
    elif pca and (density := pca_density(pca, data.test)):
        of, log_p = "pca", density["elbo"]
    else:
        return
    for name, figure in (("elbo", log_p), ("iwae_nll", -log_p)):
        if f"test/{name}" in report.figures:
            report.add({name: figure}, of)


def samples(
    report: Report,
    recipe: Generates,
    data: Dataset,
    screen: Screen,
    extractor: Extractor | None = None,
    folder: Path | None = None,
) -> None:
    """How samples are told from test images, beside training images and Gaussian ones, as many of each.

    Distances are in the features of the data's own classifier, where they have classes, and in those of another
    `extractor` too. What does not depend on the model is kept in the user's cache folder.
    """
    assert isinstance(recipe, Recipe)
    n = min(generation.MOST, len(data.test), len(data.train))
    with at_rest(recipe):
        drawn = torch.cat([recipe.decode(recipe.prior(BATCH)).cpu() for _ in range(generation.MOST // BATCH)])
    device = data.train.device
    judge = _judge(data, screen)
    extractors = [Extractor("lenet", judge.sha256, judge.net[0], device)] if judge else []
    extractors += [extractor] if extractor else []
    with screen.progress("samples against test images", 2 + 3 * len(extractors)) as bar:
        report.add(pixel_figures(drawn, data))
        for number, each in enumerate(extractors):
            title = f"samples against test images, by {each.name}"
            bar.update(1 + 3 * number, title)
            real, rows = references(each, data, n, judge, folder)
            bar.update(3 + 3 * number, title)
            features = each(drawn)
            report.add(generation.distances(features[:n], real, each.name))
            if judge and each.name == "lenet":
                logits = judge.logits(features)
                report.add({**class_figures(logits), "judge_error": judge.error})
                heights = dict(zip(data.classes, shares(logits).tolist(), strict=True))
                report.pictures["test-classes"] = pictures.bars(heights, "share of the samples")
            for of, figures in rows.items():
                report.add(figures, of)
            report.tags[f"aelab.{each.name}_sha256"] = each.sha256
        if not extractors:
            for of, images in real_and_gaussian(data, n).items():
                report.add(pixel_figures(images, data, of == "real"), of)
        report.tags["aelab.compared_samples"] = str(n)
    which = generation.nearest(drawn[: 2 * SHOWN], data.train)[1]
    copies = data.train.batch(which.to(data.train.images.device))[0].cpu()
    report.pictures["test-nearest"] = pictures.pairs(drawn[: 2 * SHOWN], copies, SHOWN)


def _judge(data: Dataset, screen: Screen) -> Judge | None:
    """The classifier of data with classes."""
    if len(data.classes) < 2:
        return None
    with screen.progress(f"training the judge of {data.name}, once", STEPS) as bar:
        return judge_of(data, bar.update)


def report_of(
    recipe: Recipe, data: Dataset, screen: Screen, *, draws: int = 500, seed: int = 0, batch_size: int = BATCH,
    extractor: Extractor | None = None, plain: bool = False,
) -> Report:  # fmt: skip
    """All of it. `draws`: importance samples of a likelihood, 0 for none; `seed`: that of the training, which drew its labels.

    `extractor`: other features of samples than the classifier's; `plain`: loss terms, reconstructions and likelihood only.
    """
    report = Report()
    losses(report, recipe, data, seed)
    pca = None
    if isinstance(recipe, Denoises) and "test/denoised_mse" in report.figures:
        noise(report, recipe, data, screen)
    if isinstance(recipe, Encodes) and (not plain or isinstance(recipe, (Autoencodes, Explains))):
        with at_rest(recipe):
            pca = fit_pca(data.train, recipe.encode(data.test.batch(slice(0, 1))[0]).numel())
        if isinstance(recipe, Autoencodes):
            reconstruction(report, recipe, data, pca, screen, batch_size)
        if not plain:
            codes(report, recipe, data, pca, screen, batch_size)
    likelihood(report, recipe, data, pca, draws, screen)
    if isinstance(recipe, Generates) and not plain:
        samples(report, recipe, data, screen, extractor)
    return report
