"""Variational autoencoder: codes with a distribution, to sample from.

    log p(x) >= ELBO = E_q[ log p(x|z) ] - KL( q(z|x) || p(z) )
    L    = nll + beta KL                    beta = 1: L = -ELBO
    p(z) = N(0, I)                          q(z|x) = N(mu, diag sigma^2)
    z    = mu + sigma * eps,  eps ~ N(0, I)
    nll  = - sum_i log Bernoulli( x_i | p_i(z) )
    KL   = 1/2 sum_d ( mu_d^2 + sigma_d^2 - 1 - log sigma_d^2 )

Kingma & Welling 2014, equations 3 and 10, appendix B; beta: Higgins et al.
2017. A Bernoulli is a likelihood only of zeros and ones: whenever an image is
seen, its pixels are drawn anew as x_i ~ Bernoulli(grey value) (dynamic
binarisation). nll, kl and elbo are in nats per image.
"""

from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import Image, Metrics, Recipe


class VAE(Recipe):
    batch_size = 32

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 20,
        hidden: Annotated[int, Ge(1), "width of the two hidden layers on either side"] = 400,
        beta: Annotated[float, Ge(0), "weight of the KL term; 1 is the ELBO"] = 1.0,
        lr: Annotated[float, Gt(0), "step size of Adam"] = 1e-3,
    ) -> None:
        super().__init__()
        channels, height, width = image
        pixels = channels * height * width
        self.latent_dim, self.beta, self.lr = latent_dim, beta, lr
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 2 * latent_dim),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, pixels), nn.Unflatten(1, image),
        )  # fmt: skip

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z|x)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)  # (B, D), (B, D)
        return mu, log_var

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))  # (B, C, H, W), the mean of p(x|z)

    def prior(self, n: int) -> Tensor:
        return torch.randn(n, self.latent_dim, device=next(self.parameters()).device)  # (n, D)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        x = torch.bernoulli(x)
        mu, log_var = self.posterior(x)  # (B, D), (B, D)
        z = mu + torch.exp(log_var / 2) * torch.randn_like(mu)  # (B, D)
        nll = F.binary_cross_entropy_with_logits(self.decoder(z), x, reduction="sum") / len(x)
        kl = (mu**2 + log_var.exp() - 1 - log_var).sum() / 2 / len(x)
        return nll + self.beta * kl, {"nll": nll, "kl": kl, "elbo": -(nll + kl)}
