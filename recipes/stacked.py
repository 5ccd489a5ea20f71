"""Stacked (deep) autoencoder: layers down to a narrow code, mirrored back up.

    z = f(x)        x^ = g(z)        L = mean (x - x^)^2

f is a perceptron whose layers grow narrower, g the same one turned round.
Each hidden layer has batch normalisation (Ioffe & Szegedy 2015) and a SiLU;
the code is linear, the output a sigmoid, as pixels lie in [0, 1]. With a code
of the same size it beats PCA, because it is not linear (Hinton &
Salakhutdinov 2006).

In 2006 such a net was hard to train from random weights. It was pretrained
layer by layer, as a stack of restricted Boltzmann machines (RBMs). Bengio et
al. 2007 replaced the RBMs by autoencoders of one layer each. So does
--greedy: layer k and its mirror image learn to reconstruct what the layers
below give,

    h = f_(k-1)(...f_1(x))        L_k = mean (h - g_k(f_k(h)))^2

before all layers are trained together. Today neither is needed: activations
that do not saturate, weights scaled to the width of the layers (Glorot &
Bengio 2010), batch normalisation and Adam replaced the pretraining.

The model teaches what depth adds to PCA at the same size of the code, and
whether pretraining still adds anything. In its pictures compare strokes with
those of `linear`: they are sharp, where a sum of fixed images is blurred.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from aelab.networks import mlp_blocks
from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


class Stacked(Recipe):
    epochs = 40
    schedule = "cosine"

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 30,
        hidden: Annotated[
            tuple[int, ...], Ge(1), "Widths of the hidden layers of the encoder; the decoder has them in reverse order."
        ] = (1000, 500, 250),
        greedy: Annotated[bool, "Pretrain layer by layer first, each layer for a tenth of --epochs."] = False,
        lr: Annotated[float, Gt(0), "Learning rate of Adam."] = 2e-3,
    ) -> None:
        super().__init__()
        self.image, self.greedy, self.lr = image, greedy, lr
        widths = [math.prod(image), *hidden, latent_dim]
        self.encoder = nn.Sequential(
            *mlp_blocks(*widths[:-1], activation=nn.SiLU),
            nn.Linear(widths[-2], widths[-1]),
        )
        self.decoder = nn.Sequential(
            *mlp_blocks(*reversed(widths[1:]), activation=nn.SiLU),
            nn.Sequential(nn.Linear(widths[1], widths[0]), nn.Sigmoid()),
        )

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}

    def greedy_phase(self, k: int, epochs: int) -> Phase:
        """The phase that trains layer k of f, counted from 0, and its mirror image in g."""
        below, f_k, g_k = self.encoder[:k], self.encoder[k], self.decoder[-1 - k]

        def step(x: Tensor, y: Tensor, adam: Optimizer) -> Metrics:
            with torch.no_grad():
                h = below(x.flatten(1))  # (B, width of layer k)
            loss = F.mse_loss(g_k(f_k(h)), h)
            descend(loss, adam)
            return {"loss": loss}

        adam = Adam([*f_k.parameters(), *g_k.parameters()], self.lr, fused=True)
        return Phase(f"layer {k + 1}", epochs, step, adam=adam)

    def phases(self, epochs: int) -> list[Phase]:
        together = super().phases(epochs)
        if not self.greedy:
            return together
        return [*(self.greedy_phase(k, max(1, epochs // 10)) for k in range(len(self.encoder))), *together]

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x.flatten(1))  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        x = self.decoder(z)  # (B, C H W)
        return x.view(-1, *self.image)  # (B, C, H, W)
