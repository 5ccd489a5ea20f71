"""The networks that recipes share: shapes of any image, and the layers in between."""

import pytest
import torch
from torch import nn

from aelab.networks import mlp, mlp_blocks, pyramid


@pytest.mark.parametrize(
    ("image", "top"),
    [((1, 28, 28), (10, 7, 7)), ((3, 8, 8), (5, 4, 4)), ((1, 9, 33), (5, 4, 16)), ((2, 31, 18), (10, 7, 4)),
     ((1, 2, 3), (5, 1, 1)), ((3, 64, 65), (20, 8, 8))],
)  # fmt: skip
def test_a_pyramid_halves_an_image_of_any_size_and_doubles_it_back(image, top):
    seen = []
    down, up, shape = pyramid(
        image,
        5,
        after=lambda c: seen.append(("after", c)) or [nn.BatchNorm2d(c), nn.ReLU()],
        before=lambda c: seen.append(("before", c)) or [nn.ReLU()],
    )
    x = torch.rand(4, *image)
    z = nn.Sequential(*down)(x)
    assert shape == top == z.shape[1:]
    assert nn.Sequential(*up)(z).shape == x.shape
    steps = len(down) // 3
    assert seen == [(where, 5 * 2**k) for k in range(steps) for where in ("after", "before")]
    assert isinstance(up[0], nn.ReLU) and isinstance(up[-1], nn.ConvTranspose2d)


def test_a_perceptron_has_activations_between_its_layers_only():
    kinds = [type(layer) for layer in mlp(6, 5, 4, 3, activation=nn.SiLU)]
    assert kinds == [nn.Linear, nn.SiLU, nn.Linear, nn.SiLU, nn.Linear]
    assert nn.Sequential(*mlp(6, 5, 3, activation=nn.SiLU))(torch.rand(2, 6)).shape == (2, 3)
    assert mlp(6, activation=nn.SiLU) == []


def test_each_block_of_a_perceptron_is_normalised():
    first, second = mlp_blocks(6, 5, 3, activation=nn.ReLU)
    assert [type(layer) for layer in second] == [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert second(first(torch.rand(4, 6))).shape == (4, 3)
