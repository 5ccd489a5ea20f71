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
from aelab.figures.trained import TrainedRun, data_name, need, need_one_data_set
from aelab.recipe import Encodes, Generates, HasPosterior, ImportanceWeighted, Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from aelab.data import Split

POINTS = 2000  # test images at most, whose codes are drawn
BLOCK = 250  # images at once
SEED = 20_14  # of noise that is drawn for a figure
ACTIVE_IMAGES, ACTIVE_VARIANCE = 1000, 0.01  # as in the metric active_units; Burda et al. 2016
MARKERS = "os^DvPX*<>"  # one for each ten classes
LONGEST, LEGEND_COLUMNS = 14, 6  # characters of a class's name; columns of a legend below the panels
NEAR = 0.3  # share of a class that is near where its points are densest
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


def kl_by_dimension(recipe: Recipe, test: "Split") -> Tensor:
    """KL(q(z_d|x) || N(0, 1)) of each dimension in nats, (D,), the mean over the test images."""
    assert isinstance(recipe, HasPosterior)
    total = torch.zeros(())
    with fixed_noise(recipe):
        for x, _ in test.blocks(BLOCK):
            mu, log_var = recipe.posterior(recipe.observe(x) if isinstance(recipe, ImportanceWeighted) else x)
            total = total + (mu**2 + log_var.exp() - 1 - log_var).double().sum(0).cpu() / 2
    return total / len(test)


def active(run: TrainedRun, test: "Split") -> Tensor:
    """Which dimensions of the code are active, (D,): Var_x(E[z_d|x]) > 0.01 over the first 1,000 test images."""
    codes = free(run, run.encode(test.batch(slice(0, ACTIVE_IMAGES))[0]))
    return codes.var(0) > ACTIVE_VARIANCE


@dataclass(frozen=True)
class Panel:
    """Points (N, 2) of a panel, their labels (N,), and whether the circles of the prior are drawn around the origin."""

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
    return draw_latent_space(panels, data.classes, f"{data_name(runs[0])}: codes of {len(x):,} test images")


def panels_of(run: TrainedRun, codes: Tensor, labels: Tensor) -> list[Panel]:
    """The panels of one run, of codes (N, D) and labels (N,)."""
    z, y = codes.double().numpy(), labels.numpy()
    prior = isinstance(run.recipe, HasPosterior)
    name = f"{run.name}, code of {z.shape[1]}"
    if accuracy := run.info.metrics.get("test/knn_accuracy"):
        name += f"; class by 5 neighbours: {accuracy:.0f} %"
    if z.shape[1] == 2:
        return [Panel(name, z, y, ("z₁", "z₂"), prior)]
    points, share = principal(z)
    directions = ("1st principal direction", "2nd principal direction")
    by_pca = Panel(f"{name}\nPCA, {100 * share:.0f} % of the variance", points, y, directions, prior)
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
    """Panels side by side, at most three in a row, and a legend of the classes. Points without a class have one colour."""
    from matplotlib.lines import Line2D

    columns = min(len(panels), 2 if len(panels) in (2, 4) else 3)
    rows = -(-len(panels) // columns)
    present = sorted({int(label) for panel in panels for label in panel.labels if label >= 0})
    names = [visible(classes[label])[:LONGEST] for label in present]
    marks = [
        Line2D([], [], linestyle="", markersize=7, markeredgewidth=0, color=colour, marker=marker)
        for colour, marker in map(_look, present)
    ]
    if any(panel.circles for panel in panels):
        names.append("prior: 1, 2, 3 σ")
        marks.append(Line2D([], [], color="black", linestyle="--", linewidth=1))
    beside = len(names) <= 1 + 2 * len(CLASS_COLOURS)  # else the legend stands below, in several columns
    side = min(5.5, (WIDTH - 1.5 * beside) / columns)  # inches
    below = 0.0 if beside else 0.2 * -(-len(names) // LEGEND_COLUMNS)
    figure = new_figure(WIDTH, (side + 0.3) * rows + 0.4 + below)
    figure.suptitle(visible(title), fontsize=12)
    cells = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(cells, panels, strict=False):
        _scatter(axes, panel, present)
        if len(present) <= len(CLASS_COLOURS):
            _name_classes(axes, panel, present, classes)
    for axes in cells[len(panels) :]:
        axes.set_axis_off()
    if beside:
        figure.legend(marks, names, loc="outside right center", fontsize=10, frameon=False)
    else:
        figure.legend(marks, names, loc="outside lower center", ncols=LEGEND_COLUMNS, fontsize=9, frameon=False)
    return figure


def _look(label: int) -> tuple[str, str]:
    """Colour and marker of a class: ten colours, and for each ten classes another marker."""
    return CLASS_COLOURS[label % len(CLASS_COLOURS)], MARKERS[label // len(CLASS_COLOURS) % len(MARKERS)]


def _scatter(axes: "Axes", panel: Panel, present: Sequence[int]) -> None:
    from matplotlib.patches import Circle

    for label in present or [-1]:
        x, y = panel.points[panel.labels == label].T
        colour, marker = _look(label) if label >= 0 else (COLOURS[0], "o")
        size = 10 if len(panel.points) > 500 else 18
        axes.scatter(x, y, size, color=colour, marker=marker, linewidths=0, alpha=0.7, rasterized=True)
    for radius in (1, 2, 3) if panel.circles else ():
        axes.add_patch(Circle((0, 0), radius, fill=False, color="black", linewidth=1, linestyle="--"))
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_title("\n".join(map(visible, panel.title.split("\n"))), fontsize=11)
    axes.set(xlabel=panel.axes[0], ylabel=panel.axes[1])
    if not any(panel.axes):
        axes.set(xticks=[], yticks=[])


def _name_classes(axes: "Axes", panel: Panel, present: Sequence[int], classes: Sequence[str]) -> None:
    """Writes the name of each class where its points are densest."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=3, foreground="white")]
    for label in present:
        own = panel.points[panel.labels == label]
        if len(own):
            distances = np.linalg.norm(own[:, None] - own, axis=2)  # (N, N)
            x, y = own[np.quantile(distances, NEAR, axis=1).argmin()]
            text = axes.text(x, y, visible(classes[label])[:LONGEST], ha="center", va="center", fontsize=13)
            text.set(color=_look(label)[0], fontweight="bold", path_effects=halo)
