"""The evidence lower bound: its two terms over the epochs, and its KL by dimension of the code."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aelab.errors import visible
from aelab.figures.codes import active, kl_by_dimension
from aelab.figures.style import COLOURS, WIDTH, new_figure, plain
from aelab.figures.trained import TrainedRun, described, need
from aelab.recipe import HasPosterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 50  # dimensions at most that have their number below their bar


@dataclass(frozen=True)
class Terms:
    """The terms of -ELBO after each epoch, by name in the order in which they are stacked, in nats per image."""

    title: str
    epochs: Sequence[int]
    train: Mapping[str, Sequence[float]]
    val: Mapping[str, Sequence[float]]


@need(metrics=("train/nll", "train/kl", "val/nll", "val/kl"))
def elbo(*runs: TrainedRun) -> "Figure":
    """The two terms of the ELBO, reconstruction and KL, over the epochs, in training and validation."""
    return draw_elbo([terms_of(run) for run in runs], f"{runs[0].config.data}: the ELBO = −(reconstruction + KL)")


def terms_of(run: TrainedRun) -> Terms:
    """The terms of a run by epoch, and its least -ELBO on the validation images."""
    curves = {
        split: {"reconstruction −log p(x|z)": run.curve(f"{split}/nll"), "KL(q(z|x) ‖ p(z))": run.curve(f"{split}/kl")}
        for split in ("train", "val")
    }
    epochs = sorted(set.intersection(*(set(curve.index) for split in curves.values() for curve in split.values())))
    train, val = (
        {name: [float(curve.loc[epoch]) for epoch in epochs] for name, curve in curves[split].items()}
        for split in curves
    )
    if run.conditional:
        train["class −log p(y)"] = val["class −log p(y)"] = [math.log(run.classes)] * len(epochs)
    sums = [sum(values) for values in zip(*val.values(), strict=True)]
    least = min(sums)
    title = f"{run.name}, code of {run.info.params.get('latent_dim', '?')}"
    return Terms(f"{title}\nleast −ELBO: {least:.1f} nats, epoch {epochs[sums.index(least)]}", epochs, train, val)


@plain
def draw_elbo(panels: Sequence[Terms], title: str) -> "Figure":
    """A panel for each run: the terms stacked, validation as areas, training as dashed lines at their upper edges."""
    columns = min(len(panels), 3)
    rows = -(-len(panels) // columns)
    figure = new_figure(WIDTH, 4.6 * rows + 0.5)
    figure.suptitle(visible(title), fontsize=12)
    cells = list(figure.subplots(rows, columns, squeeze=False, sharey=True).flat)
    for axes, panel in zip(cells, panels, strict=False):
        _stack(axes, panel)
    for axes in cells[len(panels) :]:
        axes.set_axis_off()
    for row in range(rows):
        cells[row * columns].set_ylabel("nats per image", fontsize=11)
    handles, labels = max((axes.get_legend_handles_labels() for axes in figure.axes), key=lambda pair: len(pair[1]))
    figure.legend(
        handles[::-1], labels[::-1], loc="outside lower center", ncols=len(labels), fontsize=10, frameon=False
    )
    return figure


def _stack(axes: "Axes", panel: Terms) -> None:
    from matplotlib.ticker import MaxNLocator

    lower, below = [0.0] * len(panel.epochs), [0.0] * len(panel.epochs)
    for colour, (name, values) in zip(COLOURS, panel.val.items(), strict=False):
        upper = [a + b for a, b in zip(lower, values, strict=True)]
        edge = [a + b for a, b in zip(below, panel.train[name], strict=True)]
        axes.fill_between(
            panel.epochs, lower, upper, color=colour, alpha=0.35, linewidth=0, label=f"{name}, validation"
        )
        axes.plot(panel.epochs, upper, color=colour, linewidth=1.5)
        axes.plot(panel.epochs, edge, color="black", linewidth=1.2, linestyle="--")
        axes.annotate(
            f"{values[-1]:.1f}", (panel.epochs[-1], (lower[-1] + upper[-1]) / 2), ha="right", va="center", fontsize=11
        )
        lower, below = upper, edge
    axes.plot([], [], color="black", linewidth=1.2, linestyle="--", label="training")
    axes.set_title("\n".join(map(visible, panel.title.split("\n"))), fontsize=11)
    axes.set(xlabel="epoch", ylim=(0, None), xlim=(panel.epochs[0], panel.epochs[-1]))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)


@need(HasPosterior)
def kl_per_dimension(run: TrainedRun) -> "Figure":
    """The KL of each dimension of the code, sorted; the active ones are marked."""
    kl, used = kl_by_dimension(run).tolist(), active(run).tolist()
    title = f"{described(run)}: KL {sum(kl):.1f} nats in all, {sum(used)} of {len(kl)} dimensions active"
    return draw_kl(kl, used, title)


@plain
def draw_kl(kl: Sequence[float], used: Sequence[bool], title: str) -> "Figure":
    """A bar for each dimension, of its KL in nats, in descending order: blue where it is active, else hatched."""
    order = sorted(range(len(kl)), key=lambda d: -kl[d])
    figure = new_figure(WIDTH, 4.5)
    axes = figure.subplots()
    on, off = ([k for k, d in enumerate(order) if used[d] == mark] for mark in (True, False))
    axes.bar(on, [kl[order[k]] for k in on], color=COLOURS[0], label=f"active, Var(E[z|x]) > 0.01: {len(on)}")
    axes.bar(
        *(off, [kl[order[k]] for k in off]),
        color="white",
        edgecolor=COLOURS[1],
        hatch="////",
        label=f"not active: {len(off)}",
    )
    axes.set_title(visible(title), fontsize=12)
    axes.set_ylabel("KL(q(z|x) ‖ N(0, 1)), nats, mean of the test images", fontsize=11)
    axes.set_xlabel("dimension of the code, sorted", fontsize=11)
    if len(kl) <= NAMED:
        axes.set_xticks(range(len(kl)), [str(d + 1) for d in order], fontsize=9)
    axes.legend(fontsize=11)
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    return figure
