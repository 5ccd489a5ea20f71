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
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.distributions import Bernoulli, Normal

from aelab.recipe import Image, Metrics, Recipe


class VAE(Recipe):
    batch_size = 32

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 20,
        hidden: Annotated[int, Ge(1), "width of the two hidden layers on either side"] = 400,
        likelihood: Annotated[Literal["bernoulli", "gaussian"], "p(x|z); gaussian for colours"] = "bernoulli",
        beta: Annotated[float, Ge(0), "weight of the KL term; 1 is the ELBO"] = 1.0,
        samples: Annotated[int, Ge(1), "codes an image, K; above 1 the bound is importance-weighted"] = 1,
        lr: Annotated[float, Gt(0), "step size of Adam"] = 1e-3,
    ) -> None:
        super().__init__()
        if samples > 1 and beta != 1:
            raise ValueError("--samples above 1 has no --beta")
        channels, height, width = image
        pixels = channels * height * width
        self.latent_dim, self.binary = latent_dim, likelihood == "bernoulli"
        self.beta, self.samples, self.lr = beta, samples, lr
        self.encoder = nn.Sequential(
            nn.Flatten(), nn.Linear(pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 2 * latent_dim),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Linear(latent_dim, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, pixels), nn.Unflatten(1, image),
        )  # fmt: skip
        self.log_s = nn.Parameter(torch.tensor(-1.0), requires_grad=not self.binary)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and the log variance of q(z|x)."""
        mu, log_var = self.encoder(x).chunk(2, dim=1)  # (B, D), (B, D)
        return mu, log_var

    def encode(self, x: Tensor) -> Tensor:
        return self.posterior(x)[0]  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.decoder(z))  # (B, C, H, W), m(z)

    def prior(self, n: int) -> Tensor:
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
