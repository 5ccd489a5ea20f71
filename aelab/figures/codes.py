"""Codes of test images, and the figure that shows them: the latent space, coloured by class."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aelab.errors import visible
from aelab.figures.style import CLASS_COLOURS, COLOURS, WIDTH, new_figure, plain
from aelab.figures.trained import TrainedRun, need, need_one_data_set
from aelab.recipe import Encodes, Generates, HasPosterior, ImportanceWeighted, Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 2000  # test images at most, whose codes are drawn
BLOCK = 250  # images at once
SEED = 20_14  # of noise that is drawn for a figure
ACTIVE_IMAGES, ACTIVE_VARIANCE = 1000, 0.01  # as in the metric active_units; Burda et al. 2016
MARKERS = "os^DvPX*<>"  # one for each ten classes
Points = NDArray[np.float64]  # (N, 2)


@contextmanager
def fixed_noise(recipe: Recipe) -> Iterator[None]:
    """Evaluation mode without gradients, with noise of a fixed seed; mode and random state are restored afterwards."""
    was_training = recipe.training
    device = next(recipe.parameters()).device
    recipe.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(SEED)
            yield
    finally:
        recipe.train(was_training)


def evenly(n: int, most: int) -> Tensor:
    """The indices of at most `most` of n images, evenly spaced."""
    return torch.linspace(0, n - 1, min(n, most)).round().long()


def free(run: TrainedRun, codes: Tensor) -> Tensor:
    """Codes (N, D) without the class that a conditional recipe appends to them."""
    return codes[:, : codes.shape[1] - run.classes] if run.conditional else codes


def with_class(run: TrainedRun, codes: Tensor, label: int = 0) -> Tensor:
    """Codes (N, D) with a class behind them, if the recipe is conditional."""
    if not run.conditional:
        return codes
    return torch.cat([codes, torch.eye(run.classes)[label].expand(len(codes), -1)], 1)


def prior_codes(run: TrainedRun, n: int) -> Tensor:
    """Codes (n, D), drawn from the prior, always the same ones; on the CPU."""
    assert isinstance(run.recipe, Generates)
    with fixed_noise(run.recipe):
        return run.recipe.sample_prior(n).cpu()


def kl_by_dimension(run: TrainedRun) -> Tensor:
    """KL(q(z_d|x) || N(0, 1)) of each dimension in nats, (D,), the mean over the test images."""
    recipe = run.recipe
    assert isinstance(recipe, HasPosterior)
    total, test = torch.zeros(()), run.data().test
    with fixed_noise(run.recipe):
        for x, _ in test.blocks(BLOCK):
            mu, log_var = recipe.posterior(recipe.observe(x) if isinstance(recipe, ImportanceWeighted) else x)
            total = total + (mu**2 + log_var.exp() - 1 - log_var).double().sum(0).cpu() / 2
    return total / len(test)


def active(run: TrainedRun) -> Tensor:
    """Which dimensions of the code are active, (D,): Var_x(E[z_d|x]) > 0.01 over the first 1,000 test images."""
    codes = free(run, run.encode(run.data().test.batch(slice(0, ACTIVE_IMAGES))[0]))
    return codes.var(0) > ACTIVE_VARIANCE


@dataclass(frozen=True)
class Panel:
    """Points of one panel, their labels (N,), and whether the circles of the prior are drawn around the origin."""

    title: str
    points: Points
    labels: NDArray[np.int64]
    axes: tuple[str, str] = ("", "")  # names; without them no ticks either
    circles: bool = False


def one_dimensional(run: TrainedRun) -> str:
    """A reason for `need`: a code of one number fills no plane."""
    return "its code has one dimension" if run.info.params.get("latent_dim") == "1" else ""


@need(Encodes, unless=one_dimensional)
def latent_space(*runs: TrainedRun) -> "Figure":
    """The codes of test images, coloured by class: of two dimensions as they are, of more by PCA and by t-SNE."""
    need_one_data_set(runs, "latent-space")
    data = runs[0].data()
    x, y = data.test.batch(evenly(len(data.test), POINTS).to(data.test.images.device))
    panels = [panel for run in runs for panel in panels_of(run, free(run, run.encode(x)), y.cpu())]
    return draw_latent_space(panels, data.classes, f"{runs[0].config.data}: codes of {len(x):,} test images")


def panels_of(run: TrainedRun, codes: Tensor, labels: Tensor) -> list[Panel]:
    """The panels of one run, of codes (N, D) and labels (N,)."""
    z, y = codes.double().numpy(), labels.numpy()
    name, prior = f"{run.name}, code of {z.shape[1]}", isinstance(run.recipe, HasPosterior)
    if z.shape[1] == 2:
        return [Panel(name, z, y, ("z₁", "z₂"), prior)]
    points, share = principal(z)
    by_pca = Panel(
        f"{name}\nPCA: {100 * share:.0f} % of the variance", points, y, ("1st direction", "2nd direction"), prior
    )
    return [by_pca, Panel(f"{name}\nt-SNE", embedded(z), y)]


def principal(z: NDArray[np.float64]) -> tuple[Points, float]:
    """Codes (N, D) in the plane of their two first principal directions, and the share of the variance in it.

    The origin stays where it is: a standard normal prior is then one in the plane too.
    """
    from sklearn.decomposition import PCA

    pca = PCA(2, svd_solver="full").fit(z)
    return z @ pca.components_.T, float(pca.explained_variance_ratio_.sum())


def embedded(z: NDArray[np.float64]) -> Points:
    """Codes (N, D) in two dimensions by t-SNE (van der Maaten & Hinton 2008), always the same ones."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(z) - 1) / 3)
    points: Points = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(z).astype(np.float64)
    return points


@plain
def draw_latent_space(panels: Sequence[Panel], classes: Sequence[str], title: str) -> "Figure":
    """Panels side by side, at most three in a row, and a legend of the classes. Points without a class are blue."""
    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = -(-len(panels) // columns)
    present = sorted({int(label) for panel in panels for label in panel.labels if label >= 0})
    beside = len(present) <= 20  # else the legend stands below, in several columns
    side = (WIDTH - 1.5 * (beside and bool(present))) / columns  # inches
    wide = 8  # columns of a legend below
    figure = new_figure(WIDTH, min(side, 6) * rows + 0.4 + (0 if beside else 0.19 * -(-len(present) // wide)))
    figure.suptitle(visible(title), fontsize=12)
    cells = figure.subplots(rows, columns, squeeze=False).flat
    for axes, panel in zip(cells, panels, strict=False):
        _scatter(axes, panel, present, classes)
    for axes in list(cells)[len(panels) :]:
        axes.set_axis_off()
    if not present:
        return figure
    dots = [figure.axes[0].scatter([], [], s=40, color=colour, marker=marker) for colour, marker in map(_look, present)]
    names = [visible(classes[label])[:16] for label in present]
    if beside:
        figure.legend(dots, names, loc="outside right center", fontsize=10, title="class", frameon=False)
    else:
        figure.legend(dots, names, loc="outside lower center", ncols=wide, fontsize=9, frameon=False)
    return figure


def _look(label: int) -> tuple[str, str]:
    """Colour and marker of a class: ten colours, and for each ten classes another marker."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)], MARKERS[label // len(CLASS_COLOURS) % len(MARKERS)]


def _scatter(axes: "Axes", panel: Panel, present: Sequence[int], classes: Sequence[str]) -> None:
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    size = 10 if len(panel.points) > 500 else 18
    axes.set_title("\n".join(map(visible, panel.title.split("\n"))), fontsize=11)
    for label in present or [-1]:
        own = panel.points[panel.labels == label]
        colour, marker = _look(label) if label >= 0 else (COLOURS[0], "o")
        axes.scatter(
            own[:, 0], own[:, 1], s=size, color=colour, marker=marker, linewidths=0, alpha=0.7, rasterized=True
        )
    for radius in (1, 2, 3) if panel.circles else ():
        axes.add_patch(Circle((0, 0), radius, fill=False, color="black", linewidth=1, linestyle="--"))
        axes.annotate(
            f"{radius}",
            (0, -radius),
            ha="center",
            va="center",
            fontsize=9,
            path_effects=[withStroke(linewidth=3, foreground="white")],
        )
    axes.set_aspect("equal", adjustable="datalim")
    axes.set(xlabel=panel.axes[0], ylabel=panel.axes[1])
    if not any(panel.axes):
        axes.set(xticks=[], yticks=[])
