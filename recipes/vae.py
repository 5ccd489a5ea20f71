"""Variational autoencoder: codes with a distribution, to sample from.

    log p(x) >= ELBO = E_q[ log p(x|z) ] - KL( q(z|x) || p(z) )
    L    = nll + beta KL                    beta = 1: L = -ELBO
    p(z) = N(0, I)                          q(z|x) = N(mu, diag sigma^2)
    z    = mu + sigma * eps,  eps ~ N(0, I)
    nll  = - log p(x|z),  p(x|z) = Bernoulli(m(z)) or N(m(z), s^2 I)
    KL   = 1/2 sum_d ( mu_d^2 + sigma_d^2 - 1 - log sigma_d^2 )

    K samples:  L = - E log 1/K sum_k w_k,  w_k = p(x, z_k) / q(z_k|x)

Kingma & Welling 2014, equations 3 and 10, appendix B; beta: Higgins et al.
2017; K: Burda et al. 2016, equation 8. A Bernoulli is a likelihood only of
zeros and ones: whenever an image is seen, its pixels are drawn anew as
x_i ~ Bernoulli(grey value) (dynamic binarisation). nll, kl and elbo are in
nats per image.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from aelab.recipe import ImageShape, Metrics, Recipe


def mlp(*widths: int) -> list[nn.Module]:
    """Linear layers from width to width with a SiLU between any two."""
    steps = [[nn.SiLU(), nn.Linear(m, n)] for m, n in pairwise(widths)]
    return [module for step in steps for module in step][1:]


def conv(image: ImageShape, width: int) -> tuple[list[nn.Module], list[nn.Module], ImageShape]:
    """Convolutions that halve the image until a side is 8 or less, their mirror image, and the shape in between."""
    channels, *size = image
    down: list[nn.Module] = []
    up: list[nn.Module] = []
    while not down or min(size) > 8:
        more, kernel = 2 * channels if down else width, [4 + side % 2 for side in size]  # an odd side needs 5
        down += [nn.Conv2d(channels, more, kernel, stride=2, padding=1), nn.SiLU()]  # type: ignore[arg-type]
        up = [nn.SiLU(), nn.ConvTranspose2d(more, channels, kernel, stride=2, padding=1), *up]  # type: ignore[arg-type]
        channels, size = more, [side // 2 for side in size]
    return down, up, (channels, size[0], size[1])


class VAE(Recipe):
    epochs = 30
    batch_size = 64
    schedule = "cosine"

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 20,
        net: Annotated[Literal["mlp", "conv"], "three hidden layers on either side, or convolutions and two"] = "conv",
        hidden: Annotated[int, Ge(1), "width of the hidden layers"] = 400,
        width: Annotated[int, Ge(1), "conv: channels after the first convolution; each further one doubles them"] = 16,
        likelihood: Annotated[Literal["bernoulli", "gaussian"], "p(x|z); gaussian for colours"] = "bernoulli",
        beta: Annotated[float, Ge(0), "weight of the KL term; 1 is the ELBO"] = 1.0,
        samples: Annotated[int, Ge(1), "codes an image, K; above 1 the bound is importance-weighted"] = 1,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 1e-3,
    ) -> None:
        super().__init__()
        if samples > 1 and beta != 1:
            raise ValueError("--samples above 1 has no --beta")
        self.latent_dim, self.binary = latent_dim, likelihood == "bernoulli"
        self.beta, self.samples, self.lr = beta, samples, lr
        down, up, inner = conv(image, width) if net == "conv" else ([], [], image)
        around = [hidden] * (2 if net == "conv" else 3)
        flat = math.prod(inner)
        self.encoder = nn.Sequential(*down, nn.Flatten(), *mlp(flat, *around, 2 * latent_dim))
        self.decoder = nn.Sequential(*mlp(latent_dim, *around, flat), nn.Unflatten(1, inner), *up)
        self.log_s = nn.Parameter(torch.tensor(-1.0), requires_grad=not self.binary)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z|x)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)  # (B, D), (B, D)
        return mu, log_var

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))  # (B, C, H, W), m(z)

    def sample_prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=self.log_s.device)  # (n, D)

    def observe(self, x: Tensor) -> Tensor:
        """What p(x|z) is a distribution of: the image, its pixels drawn as zeros and ones for a Bernoulli."""
        return torch.bernoulli(x) if self.binary else x

    def log_likelihood(self, x: Tensor, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (B,), of observed images x."""
        m = self.decoder(z)
        p = Bernoulli(logits=m, validate_args=False) if self.binary else Normal(m.sigmoid(), self.log_s.exp())
        log_p: Tensor = p.log_prob(x)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        return log_p.flatten(1).sum(1)

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        """log w_k = log p(x, z_k) - log q(z_k|x), (K, B), of observed images x."""
        mu, log_var = self.posterior(x)  # (B, D), (B, D)
        eps = torch.randn(samples, *mu.shape, device=x.device)  # (K, B, D)
        z = mu + torch.exp(log_var / 2) * eps
        log_ratio = (eps**2 + log_var - z**2).sum(2) / 2  # log p(z) - log q(z|x): the constants cancel
        return self.log_likelihood(x.repeat(samples, 1, 1, 1), z.flatten(0, 1)).view(samples, -1) + log_ratio

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        x = self.observe(x)
        if self.samples > 1:
            bound = torch.logsumexp(self.log_weights(x, self.samples), 0).mean() - math.log(self.samples)
            return -bound, {}
        mu, log_var = self.posterior(x)  # (B, D), (B, D)
        z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)  # z = mu + sigma * eps
        nll = -self.log_likelihood(x, z).mean()
        kl = (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x)
        return nll + self.beta * kl, {"nll": nll, "kl": kl, "elbo": -(nll + kl)}
