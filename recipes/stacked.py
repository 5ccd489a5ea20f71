"""Stacked (deep) autoencoder: layers down to a narrow code, mirrored back up.

    z = f(x)        x^ = g(z)        L = mean (x - x^)^2

f and g are networks with a ReLU between any two layers; the code is linear,
the output a sigmoid, as pixels lie in [0, 1]. With a code of the same size it
beats PCA because it may bend (Hinton & Salakhutdinov 2006).
"""

from itertools import pairwise
from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import Image, Metrics, Recipe


def layers(*widths: int) -> list[nn.Module]:
    """Linear layers from width to width with a ReLU between any two."""
    steps = [[nn.ReLU(), nn.Linear(m, n)] for m, n in pairwise(widths)]
    return [module for step in steps for module in step][1:]


class Stacked(Recipe):
    epochs = 30
    batch_size = 64
    schedule = "cosine"

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 30,
        hidden: Annotated[tuple[int, ...], Ge(1), "widths of the encoder's hidden layers"] = (1000, 500, 250),
        lr: Annotated[float, Gt(0), "step size of Adam"] = 1e-3,
    ) -> None:
        super().__init__()
        channels, height, width = image
        pixels = channels * height * width
        self.lr = lr
        self.encoder = nn.Sequential(nn.Flatten(), *layers(pixels, *hidden, latent_dim))
        self.decoder = nn.Sequential(
            *layers(latent_dim, *reversed(hidden), pixels), nn.Sigmoid(), nn.Unflatten(1, image)
        )

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.decoder(z)  # (B, C, H, W)
        return x

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}
