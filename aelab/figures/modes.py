"""Which classes a model draws."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from aelab.errors import visible
from aelab.figures.style import COLOURS, WIDTH, new_figure, plain
from aelab.figures.trained import TrainedRun, described, need, without_classes
from aelab.recipe import Generates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SAMPLES = 1000


@need(Generates, unless=without_classes)
def digit_histogram(run: TrainedRun, n: int = SAMPLES) -> "Figure":
    """The share of each class among samples, by the classifier, beside equal shares and those of the training images."""
    data = run.data()
    seen = torch.bincount(run.verdicts(run.sample(n)).argmax(1), minlength=run.classes)
    real = torch.bincount(data.train.labels[data.train.labels >= 0].cpu(), minlength=run.classes)
    shares = (seen.double() / seen.sum()).tolist()
    distance = sum(abs(share - 1 / run.classes) for share in shares) / 2  # the metric class_distance
    title = f"{described(run)}: classes of {n:,} samples, by the classifier; distance from equal shares {distance:.3f}"
    return draw_shares(shares, (real.double() / real.sum()).tolist(), n, data.classes, title)


@plain
def draw_shares(shares: Sequence[float], real: Sequence[float], n: int, classes: Sequence[str], title: str) -> "Figure":
    """Bars of the shares (K,) of n samples with their standard errors, real shares (K,) as diamonds, a line at 1/K."""
    figure = new_figure(WIDTH, 4.5)
    axes = figure.subplots()
    places, count = range(len(shares)), len(shares)
    errors = [100 * math.sqrt(share * (1 - share) / n) for share in shares]
    axes.bar(places, [100 * share for share in shares], color=COLOURS[5], label="samples, ± standard error")
    axes.errorbar(places, [100 * share for share in shares], errors, fmt="none", ecolor="black", capsize=3, linewidth=1)
    axes.plot(
        places, [100 * share for share in real], "D", color=COLOURS[1], markersize=7, zorder=3, label="training images"
    )
    axes.axhline(100 / count, color="black", linestyle="--", linewidth=1.2, label=f"equal shares, {100 / count:.3g} %")
    axes.set_title(visible(title), fontsize=12)
    axes.set_ylabel("share of a class, %", fontsize=11)
    axes.set_xticks(places, [visible(name)[:16] for name in classes])
    crowded = sum(map(len, classes)) > 90
    axes.tick_params(axis="x", labelsize=9 if crowded else 11, rotation=90 if crowded else 0)
    axes.set_ylim(0, 1.25 * 100 * max(*shares, *real, 1 / count))
    axes.legend(fontsize=10, ncols=3, loc="upper center")
    return figure
