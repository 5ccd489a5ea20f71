"""Images of a class that was asked for: whether they show it, and whether a classifier can learn from them alone."""

import torch

from aelab.data import Dataset, Split
from aelab.evaluation.classifier import STEPS, Classifier, trained_on
from aelab.evaluation.loss import eval_mode
from aelab.evaluation.report import Report
from aelab.figures import grid
from aelab.progress_bar import progress_bar
from aelab.recipe import Conditional, Recipe

BATCH = 250  # codes at once
IMAGES_OF_A_CLASS, MOST_CLASSES = 10, 20  # in the picture


def of_classes(report: Report, recipe: Conditional, data: Dataset, classifier: Classifier) -> None:
    """Adds class_accuracy and cas, and a picture with a row of samples for each class, to a report.

    There are as many samples as labelled training images, equally many of each class. `class_accuracy` is the percentage that
    the data set's `classifier` takes for the class that was asked for. `cas` is the classification accuracy score (Ravuri &
    Vinyals 2019): the percentage of test images that a network classifies correctly after it was trained on these samples
    alone. `real_cas` is that of `classifier`, the same network trained on the real images.
    """
    k = len(data.classes)
    drawn = _drawn(recipe, int((data.train.labels >= 0).sum()), k, data.train.device)
    with torch.no_grad():
        right = sum(int((classifier.net(x).argmax(1) == y).sum()) for x, y in drawn.blocks(BATCH))
    with progress_bar("a classifier trained on samples alone", STEPS) as bar:
        learned = trained_on(drawn, k, bar.update)
    report.add({"class_accuracy": 100 * right / len(drawn), "cas": 100 - learned.error(data.test)})
    report.add({"cas": 100 - classifier.error(data.test)}, "real")
    shown = torch.arange(min(k, MOST_CLASSES)).repeat_interleave(IMAGES_OF_A_CLASS)
    with eval_mode(_recipe(recipe)):
        images = recipe.decode(recipe.sample_class(shown.to(data.train.device)))
    report.pictures["test-samples-of-classes"] = grid(images, IMAGES_OF_A_CLASS)
    report.notes.append(f"cas: a classifier trained on {len(drawn):,} samples, equally many of each class")


def _drawn(recipe: Conditional, n: int, k: int, device: torch.device) -> Split:
    """n samples, equally many of each of the k classes, with the classes that were asked for as labels."""
    labels, parts = torch.arange(n) % k, []
    with eval_mode(_recipe(recipe)), progress_bar("samples of each class", n) as bar:
        for y in torch.split(labels.to(device), BATCH):
            images = recipe.decode(recipe.sample_class(y)).clamp(0, 1)
            parts.append((255 * images).round().to(torch.uint8))
            bar.advance(len(y))
    return Split(torch.cat(parts), labels.to(device), device)


def _recipe(recipe: Conditional) -> Recipe:
    assert isinstance(recipe, Recipe)
    return recipe
