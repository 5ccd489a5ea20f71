"""Stacked (deep) autoencoder: layers down to a narrow code, mirrored back up.

    z = f(x)        x^ = g(z)        L = mean (x - x^)^2

Between any two layers of f and g there are batch normalisation (Ioffe &
Szegedy 2015) and a SiLU; the code is linear, the output a sigmoid, as pixels
lie in [0, 1]. With a code of the same size it beats PCA because it may bend
(Hinton & Salakhutdinov 2006).

--greedy trains layer after layer before all are trained together: layer k
with its mirror image learns to give back what the layers below make of x,

    h = f_(k-1)(...f_1(x))        L_k = mean (h - g_k(f_k(h)))^2

(Bengio et al. 2007). It was the way to train deep networks once.
"""

from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


def blocks(*widths: int) -> list[nn.Module]:
    """One block from width to width: linear, normalised over the batch, SiLU."""
    return [nn.Sequential(nn.Linear(m, n), nn.BatchNorm1d(n), nn.SiLU()) for m, n in pairwise(widths)]


class Stacked(Recipe):
    epochs = 40
    schedule = "cosine"

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 30,
        hidden: Annotated[tuple[int, ...], Ge(1), "widths of the encoder's hidden layers"] = (1000, 500, 250),
        greedy: Annotated[bool, "layer by layer first, a tenth of the epochs each"] = False,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 2e-3,
    ) -> None:
        super().__init__()
        channels, height, width = image
        widths = [channels * height * width, *hidden]
        self.greedy, self.lr = greedy, lr
        self.encoder = nn.Sequential(*blocks(*widths), nn.Linear(widths[-1], latent_dim))
        self.decoder = nn.Sequential(
            *blocks(latent_dim, *reversed(hidden)),
            nn.Sequential(nn.Linear((*hidden, latent_dim)[0], widths[0]), nn.Sigmoid()),
        )
        self.image = image

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x.flatten(1))  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.decoder(z)  # (B, C H W)
        return x.view(-1, *self.image)  # (B, C, H, W)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}

    def layer(self, k: int, epochs: int) -> Phase:
        """The phase that trains layer k alone, counted from 0, with its mirror image."""
        pair = nn.Sequential(self.encoder[k], self.decoder[-1 - k])

        def step(x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
            with torch.no_grad():
                h = self.encoder[:k](x.flatten(1))
            loss = F.mse_loss(pair(h), h)
            descend(loss, adam)
            return {"loss": loss}

        return Phase(f"layer {k + 1}", epochs, step, adam=Adam(pair.parameters(), self.lr, fused=True))

    def phases(self, epochs: int) -> list[Phase]:
        layers = [self.layer(k, max(1, epochs // 10)) for k in range(len(self.encoder))] if self.greedy else []
        return [*layers, *super().phases(epochs)]
