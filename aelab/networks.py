"""Networks that several recipes share: perceptrons, and pyramids of convolutions for images of any size.

Each function returns a list of layers, which a recipe puts between its own:

    encoder = nn.Sequential(nn.Flatten(), *mlp(784, 400, 20, activation=nn.SiLU))

Layers are made in a fixed order, as each draws its initial weights from the seed: another order is another training.
Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Iterable
from itertools import pairwise

from torch import nn

from aelab.recipe import ImageShape


def mlp(*widths: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """A perceptron, (B, widths[0]) -> (B, widths[-1]): linear layers with an activation between any two.

    There is none before the first layer and none after the last.
    """
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        if layers:
            layers.append(activation())
        layers.append(nn.Linear(before, after))
    return layers


def mlp_blocks(*widths: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    """The hidden layers of a perceptron, (B, widths[0]) -> (B, widths[-1]): linear, batch normalisation, activation.

    Each layer is one module with its normalisation (Ioffe & Szegedy 2015), to be trained or frozen by itself.
    """
    return [
        nn.Sequential(nn.Linear(before, after), nn.BatchNorm1d(after), activation())
        for before, after in pairwise(widths)
    ]


def pyramid(
    image: ImageShape,
    width: int,
    *,
    after: Callable[[int], Iterable[nn.Module]],
    before: Callable[[int], Iterable[nn.Module]],
) -> tuple[list[nn.Module], list[nn.Module], ImageShape]:
    """Convolutions that halve an image step by step, and transposed convolutions that double it back.

    Returns (down, up, top): `down` maps images (B, C, H, W) to (B, *top), and `up` maps (B, *top) to (B, C, H, W).
    There is at least one step, and one more while both sides are longer than 8. The first makes `width` channels, each
    further one doubles them. `after(c)` are the layers behind a convolution that makes c channels, `before(c)` those
    in front of a transposed convolution that takes c channels: normalisation, activation, dropout.

    Both get every size right without further padding. With kernel k, stride 2 and padding 1 a convolution makes
    floor((n - k) / 2) + 2 values of a side of n, and a transposed one makes 2 m - 4 + k of m. So the kernel is 4 where
    n is even (n -> n/2 -> n), and 5 where it is odd (n -> (n - 1)/2 -> n); height and width each have their own.
    """
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    channels, height, wide = image
    while not down or min(height, wide) > 8:
        more = 2 * channels if down else width
        kernel = (4 + height % 2, 4 + wide % 2)
        down = [*down, nn.Conv2d(channels, more, kernel, stride=2, padding=1), *after(more)]
        up = [*before(more), nn.ConvTranspose2d(more, channels, kernel, stride=2, padding=1), *up]
        channels, height, wide = more, height // 2, wide // 2
    return down, up, (channels, height, wide)
