"""Sparse autoencoder: many hidden units, of which an image uses few.

    z = sigmoid(W x + b)        x^ = sigmoid(V z + c)
    rho^_j = mean of z_j over the images of a batch

    L = mean 1/2 |x - x^|^2 + sparsity sum_j KL(rho || rho^_j)
    KL(rho || r) = rho log(rho / r) + (1 - rho) log((1 - rho) / (1 - r))

Ng, CS294A lecture notes: Sparse autoencoder, 2011. The code may be
wide: what keeps the net from copying is that a unit may be active for few
images only. KL is that of two coins: 0 where the mean activation of unit j is
rho, and without bound towards 0 and 1. Ng's mean is over all images, the one
here over a batch, so the penalty depends a little on the batch size.

The model teaches that a code can be restricted by more than its size.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.testing import assert_close

import aelab
from aelab.recipe import ImageShape, Metrics, Recipe


class Sparse(Recipe):
    epochs = 40
    schedule = "cosine"
    overcomplete = True

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "hidden units, the dimension D of the code z"] = 196,
        rho: Annotated[float, Interval(gt=0, lt=1), "mean activation that is asked of each unit"] = 0.1,
        sparsity: Annotated[float, Ge(0), "weight of the sparsity penalty; 0 is a plain autoencoder"] = 3.0,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 2e-3,
    ) -> None:
        super().__init__()
        self.rho, self.sparsity, self.lr = rho, sparsity, lr
        pixels = math.prod(image)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, latent_dim), nn.Sigmoid())
        self.decoder = nn.Sequential(nn.Linear(latent_dim, pixels), nn.Sigmoid(), nn.Unflatten(1, image))

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        z = self.encode(x)
        error = (x - self.decode(z)).square().sum() / 2 / len(x)
        penalty = self.penalty(z)
        return error + self.sparsity * penalty, {"penalty": penalty, "activation": z.mean()}

    def penalty(self, z: Tensor) -> Tensor:
        """sum_j KL(rho || rho^_j) in nats, of the codes (B, D) of a batch."""
        rho, rho_hat = self.rho, z.mean(0)  # rho^, (D,)
        kl = rho * torch.log(rho / rho_hat) + (1 - rho) * torch.log((1 - rho) / (1 - rho_hat))  # (D,)
        return kl.sum()

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)  # (B, D), in (0, 1)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # (B, C, H, W)


# Tests: pytest examples/sparse.py


def test_the_penalty_is_zero_at_rho_and_known_elsewhere() -> None:
    recipe = Sparse((1, 2, 2), latent_dim=3, rho=0.25)
    at_rho = torch.tensor([[0.5, 0.25, 0.0], [0.0, 0.25, 0.5]])  # the mean of each column is 0.25
    assert_close(recipe.penalty(at_rho), torch.tensor(0.0))
    kl = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert_close(recipe.penalty(torch.full((2, 3), 0.5)), torch.tensor(3 * kl))


def test_without_sparsity_the_loss_is_half_the_squared_error() -> None:
    recipe = Sparse((1, 2, 2), latent_dim=3, sparsity=0)
    x = torch.rand(5, 1, 2, 2)
    loss, _ = recipe.loss(x, torch.zeros(5))
    squares = (x - recipe.decode(recipe.encode(x))) ** 2
    assert_close(loss, squares.sum((1, 2, 3)).mean() / 2)


def test_shapes() -> None:
    recipe = Sparse((3, 4, 5), latent_dim=7)
    z = recipe.encode(torch.rand(2, 3, 4, 5))
    assert z.shape == (2, 7)
    assert recipe.decode(z).shape == (2, 3, 4, 5)


def test_training_brings_the_mean_activation_to_rho() -> None:
    data = aelab.open_data("digits")
    recipe = Sparse(data.image, latent_dim=32, rho=0.1)
    images = data.test.showcase(100)
    before = recipe.encode(images).mean().item()
    for _ in aelab.Trainer(recipe, data, aelab.Settings(epochs=20, batch_size=64, seed=0)):
        pass  # its steps are taken while one iterates
    after = recipe.encode(images).mean().item()
    assert before > 0.4
    assert abs(after - 0.1) < 0.02
