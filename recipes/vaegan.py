"""VAE-GAN: a VAE that compares images by the features of a discriminator.

    q(z|x) = N(mu, diag sigma^2)
    x~     = G(z),  z ~ q(z|x)                x_p = G(z),  z ~ N(0, I)

    kl           = KL( q(z|x) || N(0, I) )
    feature_loss = 1/2 | D_l(x) - D_l(x~) |^2
    d_loss       = - log D(x) - 1/2 log(1 - D(x~)) - 1/2 log(1 - D(x_p))
    g_loss       = - 1/2 log D(x~) - 1/2 log D(x_p)

    encoder:  min  kl + feature_loss
    G:        min  gamma feature_loss + g_loss
    D:        min  d_loss

D_l are the outputs of D's last convolution, after its activation. Up to a
constant feature_loss is the nll of a normal likelihood of these features
instead of pixels; kl and feature_loss are in nats per image. Noise is added
to what D classifies, as in `gan` (Sonderby et al. 2017), but not to the input
of D_l. feature_loss never changes D, and D_l(x) is a fixed target in it.

A step. D moves first, down d_loss. Then one Adam moves the encoder and G,
with gradients from the new D, down kl + feature_loss + g_loss / gamma. g_loss
does not reach the encoder: z is held fixed in it. So the encoder gets the
gradient of its own loss, and G 1/gamma times that of its own, a factor that
Adam divides out. G decodes z twice: for feature_loss, and together with the
codes of x_p for d_loss and g_loss.

Larsen et al. 2016, algorithm 1, but for these:
  - x~ and x_p count one half each in d_loss and g_loss, so that real and
    generated images weigh the same;
  - g_loss is the non-saturating one (Goodfellow et al. 2014), not -d_loss;
  - D moves first, where Larsen takes all gradients before any step;
  - D normalises each channel of each image by itself (Ulyanov et al. 2016),
    not over the batch: a running average over real, reconstructed and drawn
    images fits none of them. There is no learned scale, with which D could
    shrink its features and feature_loss with them;
  - D sees noise, and all steps are Adam's.

The model teaches that the measure of similarity decides what reconstructions
look like: pixels punish a stroke that is one pixel off and forgive a blur,
features do neither. In its pictures compare reconstructions with those of
`vae`: they are sharper, and less exact in each pixel.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.optim import Adam, Optimizer

from aelab.networks import pyramid
from aelab.recipe import ImageShape, Metrics, Phase, Recipe, descend


def log_d(logit: Tensor) -> Tensor:
    """log D, where D = sigmoid(logit)."""
    return -softplus(-logit)


def log_1_minus_d(logit: Tensor) -> Tensor:
    """log(1 - D), where D = sigmoid(logit)."""
    return -softplus(logit)


def gradient_norm(net: nn.Module) -> Tensor:
    """The norm of the gradient that the last backward pass left in a network."""
    return nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])


class VAEGAN(Recipe):
    epochs = 30
    batch_size = 64
    ema = 0.995  # G and D circle around the equilibrium; the average of their weights is nearer to it
    monitor = None  # none of the losses tells which generator is best

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 32,
        width: Annotated[int, Ge(1), "Channels after the first convolution; each further one doubles them."] = 32,
        gamma: Annotated[float, Gt(0), "Weight gamma of feature_loss against g_loss in the loss of G."] = 1e-3,
        noise: Annotated[
            float, Ge(0), "Standard deviation of the noise that is added to all images that D sees."
        ] = 0.2,
        lr: Annotated[float, Gt(0), "Learning rate of Adam for D, and of that for encoder and G."] = 1e-3,
    ) -> None:
        super().__init__()
        self.latent_dim, self.gamma, self.noise, self.lr = latent_dim, gamma, noise, lr
        down, up, top = pyramid(
            image,
            width,
            after=lambda c: [nn.BatchNorm2d(c), nn.LeakyReLU(0.2)],
            before=lambda c: [nn.BatchNorm2d(c), nn.ReLU()],
        )
        self.encoder = nn.Sequential(
            *down,
            nn.Flatten(),
            nn.Linear(math.prod(top), 2 * latent_dim),
        )
        self.generator = nn.Sequential(
            nn.Linear(latent_dim, math.prod(top)),
            nn.Unflatten(1, top),
            *up,
            nn.Sigmoid(),
        )
        down, _, _ = pyramid(
            image,
            width,
            after=lambda c: [nn.InstanceNorm2d(c), nn.LeakyReLU(0.2)],
            before=lambda c: [],
        )
        self.features = nn.Sequential(*down)  # D_l
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(math.prod(top), 1))  # the rest of D

    def draw(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Codes z ~ q(z|x), (B, D), and kl."""
        mu, log_var = self.posterior(x)  # (B, D), (B, D)
        eps = torch.randn_like(mu)
        z = mu + torch.exp(log_var / 2) * eps  # mu + sigma * eps
        return z, (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x)

    def feature_loss(self, x: Tensor, x_rec: Tensor) -> Tensor:
        """Of images x and their reconstructions x~, (B, C, H, W) each."""
        return (self.features(x_rec) - self.features(x).detach()).square().sum() / 2 / len(x)

    def discriminate(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """The logit of D(x) of images x (B, C, H, W); D does not ask for their classes y (B,)."""
        return self.head(self.features(x + self.noise * torch.randn_like(x)))  # (B, 1)

    def discriminator_loss(self, real: Tensor, fake: Tensor) -> Tensor:
        """What D minimises, given its logits of x, (B, 1), and of x~ and x_p, (2 B, 1)."""
        return -(log_d(real).mean() + log_1_minus_d(fake).mean())

    def generator_loss(self, fake: Tensor) -> Tensor:
        """What G minimises beside feature_loss, given D's logits of x~ and x_p, (2 B, 1)."""
        return -log_d(fake).mean()

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        z, kl = self.draw(x)
        feature_loss = self.feature_loss(x, self.decode(z))
        x_fake = self.decode(torch.cat([z, self.sample_prior(len(x))]))  # (2 B, C, H, W), x~ and x_p
        fake, real = self.discriminate(x_fake), self.discriminate(x)  # (2 B, 1), (B, 1)
        return kl + feature_loss, {
            "kl": kl,
            "feature_loss": feature_loss,
            "d_loss": self.discriminator_loss(real, fake),
            "g_loss": self.generator_loss(fake),
            "d_real": real.sigmoid().mean(),
            "d_fake": fake.sigmoid().mean(),
        }

    def training_step(self, x: Tensor, y: Tensor, adam_d: Optimizer, adam_vae: Optimizer) -> Metrics:
        """D takes a step, then the encoder and G take one with gradients from the new D."""
        z, kl = self.draw(x)
        x_rec = self.decode(z)  # (B, C, H, W), x~
        x_fake = self.decode(torch.cat([z.detach(), self.sample_prior(len(x))]))  # (2 B, C, H, W), x~ and x_p
        real, fake = self.discriminate(x), self.discriminate(x_fake.detach())  # (B, 1), (2 B, 1)
        d_loss = self.discriminator_loss(real, fake)
        d_grad_norm = descend(d_loss, adam_d)
        feature_loss = self.feature_loss(x, x_rec)
        g_loss = self.generator_loss(self.discriminate(x_fake))
        descend(kl + feature_loss + g_loss / self.gamma, adam_vae)
        return {
            "loss": kl + feature_loss,
            "kl": kl,
            "feature_loss": feature_loss,
            "d_loss": d_loss,
            "g_loss": g_loss,
            "d_real": real.sigmoid().mean(),
            "d_fake": fake.sigmoid().mean(),
            "d_grad_norm": d_grad_norm,
            "e_grad_norm": gradient_norm(self.encoder),
            "g_grad_norm": self.gamma * gradient_norm(self.generator),  # of gamma feature_loss + g_loss
        }

    def phases(self, epochs: int) -> list[Phase]:
        d = [*self.features.parameters(), *self.head.parameters()]
        vae = [*self.encoder.parameters(), *self.generator.parameters()]
        adam_d, adam_vae = (Adam(weights, self.lr, betas=(0.5, 0.999), fused=True) for weights in (d, vae))
        return [Phase("train", epochs, self.training_step, adam_d=adam_d, adam_vae=adam_vae)]

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z|x)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)
        return mu, log_var  # (B, D), (B, D)

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]  # (B, D), mu

    def decode(self, z: Tensor) -> Tensor:
        return self.generator(z)  # (B, C, H, W), G(z)

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=next(self.parameters()).device)  # (n, D)
