"""The evidence lower bound: its two terms over the epochs, and its KL by dimension of the code."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aelab.errors import visible
from aelab.figures.codes import ACTIVE_VARIANCE, active, kl_by_dimension
from aelab.figures.style import COLOURS, WIDTH, new_figure, plain
from aelab.figures.trained import TrainedRun, data_name, described, need
from aelab.recipe import HasPosterior

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FEW = 10  # dimensions: the axis has room for as many
NAMED = 50  # dimensions at most that have their number below their bar


@dataclass(frozen=True)
class Terms:
    """The terms of -ELBO in nats per image after each epoch: by split, reconstruction and KL, and what is the same always."""

    title: str
    epochs: Sequence[int]
    nll: Mapping[str, Sequence[float]]
    kl: Mapping[str, Sequence[float]]
    constant: float = 0.0  # log K of a conditional recipe

    def sums(self, split: str) -> list[float]:
        """-ELBO after each epoch."""
        return [nll + kl + self.constant for nll, kl in zip(self.nll[split], self.kl[split], strict=True)]


@need(metrics=("train/nll", "train/kl", "val/nll", "val/kl"))
def elbo(*runs: TrainedRun) -> "Figure":
    """The ELBO over the epochs, split into reconstruction and KL, in training and validation."""
    return draw_elbo([terms_of(run) for run in runs], f"{data_name(runs[0])}: −ELBO = reconstruction + KL, by epoch")


def terms_of(run: TrainedRun) -> Terms:
    """The terms of a run by epoch; its title names the least -ELBO on the validation images."""
    curves = {f"{split}/{term}": run.curve(f"{split}/{term}") for split in ("train", "val") for term in ("nll", "kl")}
    epochs = sorted(set.intersection(*(set(curve.index) for curve in curves.values())))
    nll, kl = (
        {split: [float(curves[f"{split}/{term}"].loc[epoch]) for epoch in epochs] for split in ("train", "val")}
        for term in ("nll", "kl")
    )
    terms = Terms("", epochs, nll, kl, math.log(run.classes) if run.conditional else 0.0)
    least = min(terms.sums("val"))
    when = epochs[terms.sums("val").index(least)]
    title = f"{run.name}, code of {run.info.params.get('latent_dim', '?')}\nleast −ELBO {least:.1f} nats, epoch {when}"
    return replace(terms, title=title)


@plain
def draw_elbo(panels: Sequence[Terms], title: str) -> "Figure":
    """A column for each run: above −ELBO and the reconstruction, whose distance is the KL, and below the KL alone."""
    figure = new_figure(WIDTH, 6)
    figure.suptitle(visible(title), fontsize=12)
    cells = figure.subplots(2, len(panels), squeeze=False, sharey="row", sharex="col", height_ratios=(2, 1))
    for (above, below), panel in zip(cells.T, panels, strict=True):
        _terms(above, below, panel)
    cells[1, 0].set_ylim(0, None)  # only now, when all are drawn: the panels of a row share their axis
    for axes in cells[:, 0]:
        axes.set_ylabel("nats per image", fontsize=11)
    handles, labels = (a + b for a, b in zip(*(cell.get_legend_handles_labels() for cell in cells[:, 0]), strict=True))
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=10, frameon=False)
    return figure


def _terms(above: "Axes", below: "Axes", panel: Terms) -> None:
    from matplotlib.ticker import MaxNLocator

    sums, epochs = panel.sums("val"), panel.epochs
    lines = (
        (above, panel.sums, COLOURS[6], "−ELBO"),
        (above, panel.nll.__getitem__, COLOURS[0], "reconstruction, −log p(x|z)"),
        (below, panel.kl.__getitem__, COLOURS[1], "KL(q(z|x) ‖ p(z))"),
    )
    for axes, values, colour, name in lines:
        val = values("val")
        axes.plot(epochs, val, color=colour, linewidth=2, label=name, marker="o" if len(epochs) == 1 else "")
        axes.plot(epochs, values("train"), color=colour, linewidth=1.3, linestyle="--")
        axes.annotate(
            *(f"{val[-1]:.1f}", (epochs[-1], val[-1])),
            xytext=(4, 0),
            textcoords="offset points",
            va="bottom" if name == "−ELBO" else "top",
            fontsize=10,
            color=colour,
        )
        axes.grid(alpha=0.3)
    above.fill_between(epochs, panel.nll["val"], sums, color=COLOURS[1], alpha=0.25, linewidth=0)
    below.plot([], [], color="0.4", linewidth=1.3, linestyle="--", label="dashed: training")
    above.set_title("\n".join(map(visible, panel.title.split("\n"))), fontsize=11)
    below.set(xlabel="epoch")
    first, last = epochs[0], epochs[-1]
    below.set_xticks([tick for tick in MaxNLocator(8, integer=True).tick_values(first, last) if first <= tick <= last])
    below.set_xlim(first - 0.3, last + 0.3 + 0.16 * (last - first))  # on the right is room for the last values


@need(HasPosterior)
def kl_per_dimension(run: TrainedRun) -> "Figure":
    """The KL of each dimension of the code, sorted; the active ones are marked."""
    test = run.data().test
    kl, used = kl_by_dimension(run.recipe, test).tolist(), active(run, test).tolist()
    title = f"{described(run)}: KL {sum(kl):.1f} nats in all, {sum(used)} of {len(kl)} dimensions active"
    return draw_kl(kl, used, title)


@plain
def draw_kl(kl: Sequence[float], used: Sequence[bool], title: str) -> "Figure":
    """A bar for each dimension, of its KL in nats, in descending order; a cross above those that are not active."""
    order = sorted(range(len(kl)), key=lambda d: -kl[d])
    off = [k for k, d in enumerate(order) if not used[d]]
    figure = new_figure(WIDTH, 4.5)
    axes = figure.subplots()
    bars = axes.bar(range(len(kl)), [kl[d] for d in order], color=COLOURS[0])
    bars.set_label(f"active, Var(E[z|x]) > {ACTIVE_VARIANCE}: {len(kl) - len(off)}")
    for k in off:
        bars[k].set_color(COLOURS[1])
    above = 0.02 * max(kl)
    (crosses,) = axes.plot(
        off, [kl[order[k]] + above for k in off], "x", color=COLOURS[1], label=f"not active: {len(off)}"
    )
    axes.set_title(visible(title), fontsize=12)
    axes.set_ylabel("KL(q(z|x) ‖ N(0, 1)), nats", fontsize=11)
    axes.set_xlabel("dimension of the code, sorted", fontsize=11)
    if len(kl) <= NAMED:
        axes.set_xticks(range(len(kl)), [str(d + 1) for d in order], fontsize=9)
    middle, half = (len(kl) - 1) / 2, max(len(kl), FEW) / 2 + 0.1  # no bar is wider than a tenth of the figure
    axes.set_xlim(middle - half, middle + half)
    axes.legend(handles=[bars, crosses], fontsize=11, loc="upper right")
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    return figure
