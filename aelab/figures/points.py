"""Figures of data that are points in the plane: where samples fall, and the field in which a discriminator moves them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aelab.data import Modes, modes_of
from aelab.errors import visible
from aelab.figures.style import COLOURS, new_figure, plain
from aelab.figures.trained import TrainedRun, described, need, without_points
from aelab.recipe import POINT, Discriminates, Generates

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = 1000  # points
SIDE = 41  # of the grid on which a field is computed; every second of its points has an arrow
STEEP = 1.0  # logits a side of the plane: the least gradient that has a whole arrow; below it D is nearly flat
LONGEST = 0.045  # length of an arrow, in units of the plane
REAL, DRAWN = COLOURS[0], COLOURS[1]  # colours of points: blue and vermilion
TOWARDS = ("#E8A67C", "#FFFFFF", "#7FB3D5")  # of D from 0 to 1, in the manner of the points: 1 is real, so blue


@need(Generates, unless=without_points)
def points(run: TrainedRun, n: int = SHOWN) -> "Figure":
    """Samples among real points: which modes they find, and how many samples lie between them."""
    data = run.data()
    return points_figure(
        data.test.batch(slice(0, n))[0].cpu().flatten(1), run.sample(n).flatten(1), modes_of(data.train), described(run)
    )


@need(Discriminates, Generates, unless=without_points)
def vector_field(run: TrainedRun, n: int = SHOWN // 2) -> "Figure":
    """The discriminator D over the plane, and the directions in which its gradient pushes samples."""
    data = run.data()
    real, drawn = data.test.batch(slice(0, n))[0].cpu(), run.sample(n)
    logits = torch.split(run.discriminate(torch.cat([plane(SIDE), real, drawn])), [SIDE**2, len(real), len(drawn)])
    return field_figure(
        real.flatten(1),
        drawn.flatten(1),
        logits[0].reshape(SIDE, SIDE),
        logits[1:],
        modes_of(data.train),
        described(run),
    )


def plane(side: int) -> Tensor:
    """The points of a grid over the unit square, row by row from below, as images (side^2, 1, 1, 2)."""
    along = torch.linspace(0, 1, side)
    y, x = torch.meshgrid(along, along, indexing="ij")
    return torch.stack([x, y], 2).reshape(-1, *POINT)


def modes_found(drawn: Tensor, modes: Modes) -> str:
    """How many modes the points (N, 2) cover, and how many of them lie near one, in words."""
    measured = modes.metrics(drawn)
    return (
        f"{measured['modes']:.0f} of {len(modes.centres)} modes, {measured['near_mode']:.0f} % of the samples near one"
    )


@plain
def points_figure(real: Tensor, drawn: Tensor, modes: Modes, title: str) -> "Figure":
    """Real points (N, 2) and samples (M, 2), with a circle around each mode: full if it is found, dashed if it is lost.

    To the right the share of the samples of each mode, beside the equal share.
    """
    from matplotlib.patches import Circle

    figure = new_figure(10, 6.3)
    figure.suptitle(f"{visible(title)}: {modes_found(drawn, modes)}", fontsize=12)
    axes, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.15, 1)})
    found, shares = modes.found(drawn).tolist(), modes.shares(drawn)
    for (x, y), there in zip(modes.centres.tolist(), found, strict=True):
        axes.add_patch(
            Circle((x, y), 3 * modes.sd, fill=False, color="0.35", linewidth=1, linestyle="-" if there else (0, (2, 2)))
        )
    _scatter(axes, real, drawn)
    axes.set_title("a circle of 3 standard deviations around each mode, dashed where it is lost", fontsize=10)
    numbers = range(1, len(shares) + 1)
    right.bar(numbers, (100 * shares).tolist(), color=[DRAWN if there else "0.6" for there in found])
    right.axhline(100 / len(shares), color="black", linestyle="--", linewidth=1)
    right.annotate(
        f"equal shares, {100 / len(shares):.3g} %", (1, 100 / len(shares)), xycoords=("axes fraction", "data"),
        xytext=(-4, 4), textcoords="offset points", ha="right", fontsize=9,
    )  # fmt: skip
    right.set_xticks([k for k in numbers if len(shares) < 10 or k == 1 or k % 5 == 0])
    right.set(
        xlabel="mode",
        ylabel="samples within the circle, %",
        ylim=(0, max(150 / len(shares), 112 * float(shares.max()))),
    )
    right.spines[["top", "right"]].set_visible(False)
    return figure


@plain
def field_figure(
    real: Tensor, drawn: Tensor, logits: Tensor, of_points: Sequence[Tensor], modes: Modes, title: str
) -> "Figure":
    """D over the unit square, from its `logits` (S, S) on `plane(S)`, with arrows along their gradient.

    Real points (N, 2) and samples (M, 2) lie on top. An arrow has the direction of the gradient; its length grows with the
    gradient up to STEEP, or that of nine tenths of all arrows, so that few steep places do not hide the others. To the right is
    the histogram of D over the points and over the samples, from their logits `of_points`, (N,) and (M,).
    """
    from matplotlib.colors import LinearSegmentedColormap

    figure = new_figure(10, 5.9)
    figure.suptitle(f"{visible(title)}: {modes_found(drawn, modes)}", fontsize=12)
    axes, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (2, 1)})
    d = logits.sigmoid().numpy()
    reach = max(0.05, float(np.abs(d - 0.5).max()))  # the colours are symmetric about 1/2
    image = axes.imshow(
        d, origin="lower", extent=(0, 1, 0, 1), vmin=0.5 - reach, vmax=0.5 + reach, interpolation="bilinear",
        cmap=LinearSegmentedColormap.from_list("towards", TOWARDS),
    )  # fmt: skip
    figure.colorbar(image, ax=axes, pad=0.02).ax.axhline(0.5, color="black", linewidth=1)
    x, y, u, v = arrows(logits)
    axes.quiver(x, y, u, v, angles="xy", scale_units="xy", scale=1, width=0.0025, color="0.25", zorder=3)
    _scatter(axes, real, drawn)
    axes.set_title("colour: D(x); arrows: gradient of its logit, along which G moves", fontsize=10)
    span = (0.5 - reach, 0.5 + reach)
    for each, colour, style in zip(of_points, (REAL, DRAWN), ("stepfilled", "step"), strict=True):
        right.hist(
            each.sigmoid().tolist(), bins=25, range=span, color=colour, histtype=style, linewidth=1.8,
            alpha=0.5 if style == "stepfilled" else 1,
        )  # fmt: skip
    means = " and ".join(f"{float(each.sigmoid().mean()):.2f}" for each in of_points)
    right.axvline(0.5, color="black", linestyle=":", linewidth=1)
    right.set_title(f"D of real points (filled) and of samples,\nmeans {means}", fontsize=10)
    right.set(xlabel="D(x): probability that x is real", xlim=span, ylabel="points")
    right.spines[["top", "right"]].set_visible(False)
    return figure


def arrows(logits: Tensor) -> tuple[NDArray[np.float64], ...]:
    """Where arrows begin, x and y, and where they point, u and v: the gradient of the logits (S, S) on `plane(S)`."""
    values = logits.double().numpy()
    step = 1 / (len(values) - 1)
    v, u = np.gradient(values, step)  # along y, along x
    along = np.linspace(0, 1, len(values))
    x, y = np.meshgrid(along, along)
    x, y, u, v = (part[1::2, 1::2] for part in (x, y, u, v))
    length = np.hypot(u, v)
    most = max(STEEP, float(np.quantile(length, 0.9)))
    scale = LONGEST * np.minimum(length, most) / most / np.maximum(length, np.finfo(float).tiny)
    return x, y, scale * u, scale * v


def _scatter(axes: "Axes", real: Tensor, drawn: Tensor) -> None:
    """Real points and samples in the unit square, with a legend below it."""
    (x, y), (drawn_x, drawn_y) = real.T.numpy(), drawn.T.numpy()
    axes.scatter(x, y, s=5, color=REAL, alpha=0.5, linewidths=0, zorder=4, label=f"{len(real):,} real points")
    axes.scatter(
        drawn_x,
        drawn_y,
        s=9,
        color=DRAWN,
        edgecolors="white",
        linewidths=0.2,
        zorder=5,
        label=f"{len(drawn):,} samples",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal", xlabel="x₁", ylabel="x₂")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.09), ncols=2, frameon=False, fontsize=10, markerscale=2.5)
