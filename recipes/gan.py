"""Generative adversarial network: a generator G plays a discriminator D.

    D:                    max  E log D(x) + E log(1 - D(G(z)))
    G, minimax:           min  E log(1 - D(G(z)))          z ~ N(0, I)
    G, non-saturating:    max  E log D(G(z))

Goodfellow et al. 2014, equation 1 and algorithm 1 with k = 1. The two games
have the same fixed point; the gradient that reaches G differs by the factor
D/(1-D), tiny at the start, when D rejects every forgery: minimax then barely
learns. With a logit l, log D = -softplus(-l) and log(1-D) = -softplus(l).
"""

from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from aelab.recipe import Image, Metrics, Phase, Recipe, descend


class GAN(Recipe):
    epochs = 50
    batch_size = 64
    objective = None  # no loss of the game tells which generator is best

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the noise z"] = 64,
        hidden: Annotated[int, Ge(1), "width of the two hidden layers of either player"] = 512,
        loss: Annotated[Literal["non-saturating", "minimax"], "what the generator minimises"] = "non-saturating",
        dropout: Annotated[float, Interval(ge=0, lt=1), "share of the discriminator's units dropped"] = 0.3,
        lr: Annotated[float, Gt(0), "step size of Adam, both players"] = 2e-4,
    ) -> None:
        super().__init__()
        channels, height, width = image
        pixels = channels * height * width
        self.latent_dim, self.game, self.lr = latent_dim, loss, lr
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
            nn.Linear(hidden, pixels), nn.Sigmoid(), nn.Unflatten(1, image),
        )  # fmt: skip
        self.discriminator = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, hidden), nn.LeakyReLU(0.2), nn.Dropout(dropout),
            nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Dropout(dropout), nn.Linear(hidden, 1),
        )  # fmt: skip

    def prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=next(self.parameters()).device)  # (n, D)

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.generator(z)  # (B, C, H, W)
        return x

    def critic_loss(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        """What D minimises, and how it judges: the mean D(x) and D(G(z))."""
        real_logit, fake_logit = self.discriminator(x), self.discriminator(fake)  # (B, 1), (B, 1)
        loss = softplus(-real_logit).mean() + softplus(fake_logit).mean()
        return loss, {"d_real": real_logit.sigmoid().mean(), "d_fake": fake_logit.sigmoid().mean()}

    def forger_loss(self, fake_logit: Tensor) -> Tensor:
        """What G minimises."""
        return -softplus(fake_logit).mean() if self.game == "minimax" else softplus(-fake_logit).mean()

    def play(self, x: Tensor, y: Tensor, adam_d: Optimizer, adam_g: Optimizer) -> Metrics:
        """One round of the game: D moves, then G."""
        fake = self.decode(self.prior(len(x)))
        critic, parts = self.critic_loss(x, fake.detach())
        descend(adam_d, critic)
        forger = self.forger_loss(self.discriminator(fake))
        grad_g = descend(adam_g, forger)
        return {"loss": critic, "forger": forger, "grad_g": grad_g, **parts}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        fake = self.decode(self.prior(len(x)))
        critic, parts = self.critic_loss(x, fake)
        return critic, {"forger": self.forger_loss(self.discriminator(fake)), **parts}

    def phases(self, epochs: int) -> list[Phase]:
        adam_d = Adam(self.discriminator.parameters(), self.lr, betas=(0.5, 0.999), fused=True)
        adam_g = Adam(self.generator.parameters(), self.lr, betas=(0.5, 0.999), fused=True)
        return [Phase("train", epochs, self.play, adam_d=adam_d, adam_g=adam_g)]
