"""VAE-GAN: a VAE that asks a discriminator, not the pixels, what is similar.

    q(z|x) = N(mu, diag sigma^2)
    x~     = G(z),  z ~ q(z|x)                x_p = G(z),  z ~ N(0, I)
    KL     = KL( q(z|x) || N(0, I) )
    like   = 1/2 | D_l(x) - D_l(x~) |^2         D_l: what D's convolutions see
    game   = log D(x) + 1/2 log(1 - D(x~)) + 1/2 log(1 - D(x_p))

    encoder:  min  KL + like
    G:        min  gamma like - 1/2 log D(x~) - 1/2 log D(x_p)
    D:        max  game

Larsen et al. 2016, with the non-saturating game of Goodfellow et al. 2014.
Three things differ from Larsen's algorithm 1. In the game x~ and x_p count
one half each, so that real and generated images weigh the same. D moves
first, and encoder and G get their gradients from its new weights. D
normalises each channel of each image by itself (Ulyanov et al. 2016), not
over the batch: a running average over real, reconstructed and generated
images fits none of them. It has no learned scale, with which D could shrink
its features and `like` with them.

Pixels punish a face that is one pixel off and forgive a blur; the features of
D do neither. kl and like are in nats per image. D sees its images through
noise (Sonderby et al. 2017), as in `gan`.
"""

import math
from collections.abc import Callable
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


def conv(
    image: ImageShape, width: int, normalise: Callable[[int], nn.Module]
) -> tuple[list[nn.Module], list[nn.Module], ImageShape]:
    """Convolutions that halve the image until a side is 8 or less, their mirror image, and the shape in between.

    `normalise` makes the layer after a convolution, given its channels.
    """
    channels, *size = image
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    while not down or min(size) > 8:
        more, kernel = 2 * channels if down else width, [4 + side % 2 for side in size]  # an odd side needs 5
        down += [nn.Conv2d(channels, more, kernel, stride=2, padding=1), normalise(more), nn.LeakyReLU(0.2)]  # type: ignore[arg-type]
        up = [nn.BatchNorm2d(more), nn.ReLU(), nn.ConvTranspose2d(more, channels, kernel, 2, 1), *up]  # type: ignore[arg-type]
        channels, size = more, [side // 2 for side in size]
    return down, up, (channels, size[0], size[1])


def gradient_norm(net: nn.Module) -> Tensor:
    """The norm of the gradient that the last backward pass gave a network."""
    return nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])


class VAEGAN(Recipe):
    epochs = 30
    batch_size = 64
    ema = 0.995  # players of a game circle around its solution; their average is nearer to it
    monitor = None  # no loss of the game tells which generator is best

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 32,
        width: Annotated[int, Ge(1), "channels after the first convolution; each further one doubles them"] = 32,
        gamma: Annotated[float, Gt(0), "weight of the likeness against the game in G's loss"] = 1e-3,
        noise: Annotated[float, Ge(0), "standard deviation of the noise on what D sees"] = 0.2,
        lr: Annotated[float, Gt(0), "learning rate of both Adams"] = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_dim, self.gamma, self.noise, self.lr = latent_dim, gamma, noise, lr
        down, up, inner = conv(image, width, nn.BatchNorm2d)
        flat = math.prod(inner)
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, 2 * latent_dim))
        self.generator = nn.Sequential(nn.Linear(latent_dim, flat), nn.Unflatten(1, inner), *up, nn.Sigmoid())
        self.features = nn.Sequential(*conv(image, width, nn.InstanceNorm2d)[0])
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(flat, 1))

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z|x)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)  # (B, D), (B, D)
        return mu, log_var

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.generator(z)  # (B, C, H, W)
        return x

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=next(self.parameters()).device)  # (n, D)

    def discriminate(self, x: Tensor) -> Tensor:
        """The logit of D(x), the probability that x is real."""
        logit: Tensor = self.head(self.features(x + self.noise * torch.randn_like(x)))  # (B, 1)
        return logit

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes z ~ q(z|x), (B, D), and the mean KL."""
        mu, log_var = self.posterior(x)  # (B, D), (B, D)
        z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)
        return z, (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x)

    def likeness(self, x: Tensor, back: Tensor) -> Tensor:
        """like, of images x and their reconstructions; the features of x are a target that does not move."""
        difference: Tensor = self.features(back) - self.features(x).detach()
        return difference.square().sum() / 2 / len(x)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Metrics]:
        """What D minimises, given its logits, and how it judges: the mean D(x) and D(G(z))."""
        judged = {"d_real": real.sigmoid().mean(), "d_fake": fake.sigmoid().mean()}
        return softplus(-real).mean() + softplus(fake).mean(), judged

    def training_step(self, x: Tensor, y: Tensor, adam_d: Optimizer, adam_vae: Optimizer) -> Metrics:
        """One round of the game: D moves, then encoder and G against the D that has moved."""
        z, kl = self.draw(x)
        back = self.decode(z)  # x~
        forged = self.decode(
            torch.cat([z.detach(), self.sample_prior(len(x))])
        )  # x~ and x_p; the encoder has no part in it
        critic, judged = self.discriminator_loss(self.discriminate(x), self.discriminate(forged.detach()))
        d_grad_norm = descend(critic, adam_d)
        like, forger = self.likeness(x, back), softplus(-self.discriminate(forged)).mean()
        descend(kl + like + forger / self.gamma, adam_vae)  # of G: 1/gamma times its loss, all one to Adam
        e_grad_norm, g_grad_norm = gradient_norm(self.encoder), self.gamma * gradient_norm(self.generator)
        parts = {"kl": kl, "feature_loss": like, "d_loss": critic, "g_loss": forger, **judged}
        return {
            "loss": kl + like,
            **parts,
            "d_grad_norm": d_grad_norm,
            "e_grad_norm": e_grad_norm,
            "g_grad_norm": g_grad_norm,
        }

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        z, kl = self.draw(x)
        like = self.likeness(x, self.decode(z))
        fake = self.discriminate(self.decode(torch.cat([z, self.sample_prior(len(x))])))
        critic, judged = self.discriminator_loss(self.discriminate(x), fake)
        return kl + like, {"kl": kl, "feature_loss": like, "d_loss": critic, "g_loss": softplus(-fake).mean(), **judged}

    def phases(self, epochs: int) -> list[Phase]:
        critic = [*self.features.parameters(), *self.head.parameters()]
        vae = [*self.encoder.parameters(), *self.generator.parameters()]
        adam_d, adam_vae = (Adam(players, self.lr, betas=(0.5, 0.999), fused=True) for players in (critic, vae))
        return [Phase("train", epochs, self.training_step, adam_d=adam_d, adam_vae=adam_vae)]
