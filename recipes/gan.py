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
--smooth E asks D for 1 - E of real images (one-sided, Salimans et al. 2016);
--net conv has strided convolutions as DCGAN (Radford et al. 2016), but fewer
of them, and dropout in D instead of batch normalisation.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


def mlp(image: ImageShape, code: int, hidden: int, dropout: float) -> tuple[nn.Module, nn.Module]:
    """G and D with two hidden layers each."""
    pixels = math.prod(image)
    generator = nn.Sequential(
        nn.Linear(code, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, pixels), nn.Unflatten(1, image), nn.Sigmoid(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Flatten(), nn.Linear(pixels, hidden), nn.LeakyReLU(0.2), nn.Dropout(dropout),
        nn.Linear(hidden, hidden), nn.LeakyReLU(0.2), nn.Dropout(dropout), nn.Linear(hidden, 1),
    )  # fmt: skip
    return generator, discriminator


def conv(image: ImageShape, code: int, width: int, dropout: float) -> tuple[nn.Module, nn.Module]:
    """D halves the image by convolutions until a side is 8 or less; G is its mirror image."""
    channels, *size = image
    down: list[nn.Module] = []
    up: list[nn.Module] = [nn.Sigmoid()]
    while not down or min(size) > 8:
        more, kernel = 2 * channels if down else width, [4 + side % 2 for side in size]  # an odd side needs 5
        down += [nn.Conv2d(channels, more, kernel, stride=2, padding=1), nn.LeakyReLU(0.2), nn.Dropout(dropout)]  # type: ignore[arg-type]
        up = [nn.BatchNorm2d(more), nn.ReLU(), nn.ConvTranspose2d(more, channels, kernel, 2, 1), *up]  # type: ignore[arg-type]
        channels, size = more, [side // 2 for side in size]
    flat = channels * size[0] * size[1]
    generator = nn.Sequential(nn.Linear(code, flat), nn.Unflatten(1, (channels, *size)), *up)
    return generator, nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 1))


class GAN(Recipe):
    epochs = 50
    batch_size = 32
    ema = 0.9998  # players of a game circle around its solution; their average is nearer to it
    monitor = None  # no loss of the game tells which generator is best

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 16,
        net: Annotated[Literal["mlp", "conv"], "two hidden layers in either player, or convolutions"] = "mlp",
        hidden: Annotated[int, Ge(1), "mlp: width of the hidden layers"] = 400,
        width: Annotated[int, Ge(1), "conv: channels after D's first convolution; each further one doubles them"] = 32,
        loss: Annotated[Literal["non-saturating", "minimax"], "what the generator minimises"] = "non-saturating",
        noise: Annotated[float, Ge(0), "standard deviation of the noise on what D sees"] = 0.2,
        smooth: Annotated[float, Interval(ge=0, lt=0.5), "label smoothing: what D is asked for is 1 - smooth"] = 0.0,
        dropout: Annotated[float, Interval(ge=0, lt=1), "share of D's units dropped"] = 0.2,
        lr: Annotated[float, Gt(0), "learning rate of D's Adam; G's is half of it"] = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_dim, self.game, self.noise, self.smooth, self.lr = latent_dim, loss, noise, smooth, lr
        players = conv(image, latent_dim, width, dropout) if net == "conv" else mlp(image, latent_dim, hidden, dropout)
        self.generator, self.discriminator = players

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=next(self.parameters()).device)  # (n, D)

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.generator(z)  # (B, C, H, W)
        return x

    def discriminate(self, x: Tensor) -> Tensor:
        """The logit of D(x), the probability that x is real."""
        logit: Tensor = self.discriminator(x + self.noise * torch.randn_like(x))  # (B, 1)
        return logit

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        """What D minimises, given its logits, and how it judges: the mean D(x) and D(G(z))."""
        loss = (
            softplus(-real).mean() + self.smooth * real.mean() + softplus(fake).mean()
        )  # softplus(l) = softplus(-l) + l
        return loss, {"d_real": real.sigmoid().mean(), "d_fake": fake.sigmoid().mean()}

    def generator_loss(self, fake: Tensor) -> Tensor:
        """What G minimises, given D's logits of its images."""
        return -softplus(fake).mean() if self.game == "minimax" else softplus(-fake).mean()

    def training_step(self, x: Tensor, y: Tensor, adam_d: Optimizer, adam_g: Optimizer) -> Metrics:
        """One round of the game: D moves, then G."""
        fake = self.decode(self.sample_prior(len(x)))
        critic, parts = self.discriminator_loss(self.discriminate(x), self.discriminate(fake.detach()))
        d_grad_norm = descend(critic, adam_d)
        forger = self.generator_loss(self.discriminate(fake))
        g_grad_norm = descend(forger, adam_g)
        return {"loss": critic, "g_loss": forger, **parts, "d_grad_norm": d_grad_norm, "g_grad_norm": g_grad_norm}

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        fake = self.discriminate(self.decode(self.sample_prior(len(x))))
        critic, parts = self.discriminator_loss(self.discriminate(x), fake)
        return critic, {"g_loss": self.generator_loss(fake), **parts}

    def phases(self, epochs: int) -> list[Phase]:
        adam_d = Adam(self.discriminator.parameters(), self.lr, betas=(0.5, 0.999), fused=True)
        adam_g = Adam(self.generator.parameters(), self.lr / 2, betas=(0.5, 0.999), fused=True)
        return [Phase("train", epochs, self.training_step, adam_d=adam_d, adam_g=adam_g)]
