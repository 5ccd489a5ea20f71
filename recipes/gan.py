"""Generative adversarial network: a generator G plays a discriminator D.

    D:                    max  E log D(x) + E log(1 - D(G(z)))
    G, minimax:           min  E log(1 - D(G(z)))          z ~ N(0, I)
    G, non-saturating:    max  E log D(G(z))

Goodfellow et al. 2014, equation 1 and algorithm 1 with k = 1. The two games
have the same fixed point; the gradient that reaches G differs by the factor
D/(1-D), tiny as long as D rejects every forgery with confidence: minimax then
barely learns. With a logit l, log D = -softplus(-l), log(1-D) = -softplus(l).
D sees its images through noise, which keeps it from that confidence
(Arjovsky & Bottou 2017; Sonderby et al. 2017); --noise 0 is the paper's game.
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
    batch_size = 32
    ema = 0.995  # players of a game circle around its solution; their average is nearer to it
    objective = None  # no loss of the game tells which generator is best

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 16,
        hidden: Annotated[int, Ge(1), "width of the two hidden layers of either player"] = 400,
        loss: Annotated[Literal["non-saturating", "minimax"], "what the generator minimises"] = "non-saturating",
        noise: Annotated[float, Ge(0), "standard deviation of the noise on what D sees"] = 0.4,
        dropout: Annotated[float, Interval(ge=0, lt=1), "share of D's units dropped"] = 0.4,
        lr: Annotated[float, Gt(0), "step size of D's Adam; G's is half of it"] = 1e-3,
    ) -> None:
        super().__init__()
        channels, height, width = image
        pixels = channels * height * width
        self.latent_dim, self.game, self.noise, self.lr = latent_dim, loss, noise, lr
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

    def judge(self, x: Tensor) -> Tensor:
        """The logit of D(x), the probability that x is real."""
        logit: Tensor = self.discriminator(x + self.noise * torch.randn_like(x))  # (B, 1)
        return logit

    def critic_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        """What D minimises, given its logits, and how it judges: the mean D(x) and D(G(z))."""
        loss = softplus(-real).mean() + softplus(fake).mean()
        return loss, {"d_real": real.sigmoid().mean(), "d_fake": fake.sigmoid().mean()}

    def forger_loss(self, fake: Tensor) -> Tensor:
        """What G minimises, given D's logits of its images."""
        return -softplus(fake).mean() if self.game == "minimax" else softplus(-fake).mean()

    def play(self, x: Tensor, y: Tensor, adam_d: Optimizer, adam_g: Optimizer) -> Metrics:
        """One round of the game: D moves, then G."""
        fake = self.decode(self.prior(len(x)))
        critic, parts = self.critic_loss(self.judge(x), self.judge(fake.detach()))
        grad_d = descend(adam_d, critic)
        forger = self.forger_loss(self.judge(fake))
        grad_g = descend(adam_g, forger)
        return {"loss": critic, "forger": forger, **parts, "grad_d": grad_d, "grad_g": grad_g}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        fake = self.judge(self.decode(self.prior(len(x))))
        critic, parts = self.critic_loss(self.judge(x), fake)
        return critic, {"forger": self.forger_loss(fake), **parts}

    def phases(self, epochs: int) -> list[Phase]:
        adam_d = Adam(self.discriminator.parameters(), self.lr, betas=(0.5, 0.999), fused=True)
        adam_g = Adam(self.generator.parameters(), self.lr / 2, betas=(0.5, 0.999), fused=True)
        return [Phase("train", epochs, self.play, adam_d=adam_d, adam_g=adam_g)]
