"""What codes look like: the manifold of a code of two dimensions, and one dimension after the other."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aelab.errors import visible
from aelab.figures.codes import active, free, kl_by_dimension, with_class
from aelab.figures.strips import Strip, strips
from aelab.figures.style import WIDTH, new_figure, plain
from aelab.figures.trained import TrainedRun, described, need
from aelab.recipe import Autoencodes, Decodes, HasPosterior

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 21  # images; an odd number, so that one of them is the decoded zero
SWEPT = 11  # images from -3 to 3
MOST_ROWS = 10
LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def not_two_dimensional(run: TrainedRun) -> str:
    """A reason for `need`: only a code of two dimensions fills a page."""
    size = run.info.params.get("latent_dim")
    return "" if size == "2" else f"its code has {size} dimensions, not 2"


@need(HasPosterior, Decodes, unless=not_two_dimensional)
def manifold(run: TrainedRun, label: int = 0) -> "Figure":
    """The images of a code of two dimensions, each standing for an equal share of the prior (Kingma & Welling 2014, figure 4).

    A conditional recipe draws those of the class `label`.
    """
    z = quantiles(SIDE)
    images = run.decode(with_class(run, grid_of_codes(z), label))
    of_class = f", class {run.data().classes[label]}" if run.conditional else ""
    title = f"{described(run)}{of_class}: decoded codes, each for 1/{SIDE**2} of the prior; in the middle z = 0"
    return draw_manifold(images, z, title)


def quantiles(n: int) -> Tensor:
    """n values (n,) that cut a standard normal distribution into n equal shares, each in the middle of its own."""
    z: Tensor = torch.special.ndtri((torch.arange(n) + 0.5) / n)
    return z


def grid_of_codes(z: Tensor) -> Tensor:
    """Codes (n * n, 2) of all pairs of values z (n,), row by row from the top: z₁ grows to the right, z₂ upwards."""
    return torch.stack([z.repeat(len(z)), z.flip(0).repeat_interleave(len(z))], 1)


@plain
def draw_manifold(images: Tensor, z: Tensor, title: str) -> "Figure":
    """Images (n * n, C, H, W), as `grid_of_codes` orders them, without gaps, over the values z (n,) of both axes."""
    n, (channels, height, width) = len(z), images.shape[1:]
    sheet = images.view(n, n, channels, height, width).permute(0, 3, 1, 4, 2).reshape(n * height, n * width, channels)
    figure = new_figure(WIDTH, 0.95 * WIDTH * height / width + 0.6)
    axes = figure.subplots()
    axes.imshow(sheet.clamp(0, 1).expand(-1, -1, 3).numpy(), interpolation="nearest")
    axes.set_title(visible(title), fontsize=12)
    shown = sorted({*range(n // 2, n, 2), *range(n // 2, -1, -2)})  # the middle among them
    values = [f"{z[k]:.1f}".replace("-", "−") for k in shown]
    axes.set_xticks([width * (k + 0.5) - 0.5 for k in shown], values)
    axes.set_yticks([height * (n - k - 0.5) - 0.5 for k in shown], values)
    axes.set_xlabel("z₁", fontsize=11)
    axes.set_ylabel("z₂", fontsize=11, rotation=0, va="center", labelpad=8)
    axes.tick_params(length=0, labelsize=9)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure


@need(Autoencodes)
def traversals(run: TrainedRun, image: int | None = None) -> "Figure":
    """One dimension of the code changed at a time, the most active first; the others stay 0, or the code of a test image.

    `image` is the number of that test image. A code without a prior is changed around its mean, in standard deviations.
    """
    test = run.data().test
    codes = free(run, torch.cat([run.encode(x) for x, _ in test.blocks(1000)]))  # (N, D)
    if isinstance(run.recipe, HasPosterior):
        kl = kl_by_dimension(run.recipe, test)
        order, of = kl.argsort(descending=True), [f"KL {value:.2f} nats" for value in kl.tolist()]
        middle, scale, used = torch.zeros(codes.shape[1]), torch.ones(codes.shape[1]), int(active(run, test).sum())
        what = f"z from −3 to 3; {used} of {len(kl)} dimensions are active"
    else:
        variance = codes.var(0)
        order, of = variance.argsort(descending=True), [f"σ {value:.3g}" for value in variance.sqrt().tolist()]
        middle, scale, what = codes.mean(0), variance.sqrt(), "mean of the code ± 3 σ, its standard deviation"
    start = with_class(run, middle[None])[0]
    if image is not None:
        start = run.encode(test.batch(slice(image, image + 1))[0])[0]
        what += f"; the others as in test image {image}"
    t = torch.linspace(-3, 3, SWEPT)
    rows = []
    for d in order[:MOST_ROWS].tolist():
        line = start.repeat(SWEPT, 1)
        line[:, d] = middle[d] + t * scale[d]
        rows.append(Strip(f"z{str(d + 1).translate(LOWERED)}\n{of[d]}", run.decode(line)))
    unit = "" if isinstance(run.recipe, HasPosterior) else " σ"
    heads = [f"{value:+.1f}{unit}".replace("-", "−") if k != SWEPT // 2 else "0" for k, value in enumerate(t.tolist())]
    return strips(rows, f"{described(run)}: one dimension of the code at a time, most active first\n{what}", heads)
