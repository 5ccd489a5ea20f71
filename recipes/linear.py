"""Linear autoencoder: without an activation, the best code is PCA.

    z = W x + a        x^ = V z + b        L = mean (x - x^)^2

At the optimum the columns of V span the first D principal directions
(Bourlard & Kamp 1988; Baldi & Hornik 1989) and b takes care of the mean.
Gradient descent finds this subspace, but not the single axes.

--variational gives the same maps a distribution, the smallest VAE there is:

    p(z) = N(0, I)    p(x|z) = N(V z + b, s^2 I)    q(z|x) = N(W x + a, R R^T)
    L    = nll + KL,  nll = - E_q log p(x|z)        L = -ELBO, in closed form

Its optimum is probabilistic PCA (Tipping & Bishop 1999), where the ELBO is
log p(x) itself: the exact posterior of a linear model is of q's form (Lucas
et al. 2019). nll, kl and elbo are in nats per image, of a density over grey
values.
"""

import math
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import Image, Metrics, Phase, Recipe


class Linear(Recipe):
    epochs = 40
    batch_size = 64
    schedule = "cosine"
    binary = False

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 10,
        variational: Annotated[bool, "a linear VAE, which is probabilistic PCA"] = False,
        lr: Annotated[float, Gt(0), "step size of Adam; W's falls as an image grows beyond 28 x 28"] = 3e-3,
    ) -> None:
        super().__init__()
        channels, height, width = image
        pixels = channels * height * width
        self.lr, self.lr_w = lr, lr * min(1.0, 28 * 28 / pixels)  # a step's move of z does not grow with the image
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, latent_dim))
        self.to_pixels = nn.Linear(latent_dim, pixels)
        self.decoder = nn.Sequential(self.to_pixels, nn.Unflatten(1, image))
        self.variational = variational
        if variational:
            self.log_s = nn.Parameter(torch.tensor(-1.0))
            self.root = nn.Parameter(-torch.eye(latent_dim))  # R below the diagonal, its logarithm on it

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.decoder(z)  # (B, C, H, W)
        return x

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        mu = self.encode(x)
        if not self.variational:
            return F.mse_loss(self.decode(mu), x), {}
        log_r = self.root.diag()  # (D,)
        root = self.root.tril(-1) + log_r.exp().diag()  # (D, D), R
        error = (x - self.decode(mu)).square().flatten(1).sum(1).mean() + (self.to_pixels.weight @ root).square().sum()
        nll = error / 2 * torch.exp(-2 * self.log_s) + x[0].numel() * (self.log_s + math.log(2 * math.pi) / 2)
        kl = (mu.square().sum(1).mean() + root.square().sum() - len(root)) / 2 - log_r.sum()
        return nll + kl, {"nll": nll, "kl": kl, "elbo": -(nll + kl)}

    def phases(self, epochs: int) -> list[Phase]:
        outward = [p for name, p in self.named_parameters() if not name.startswith("encoder")]
        groups: list[dict[str, Any]] = [{"params": self.encoder.parameters(), "lr": self.lr_w}, {"params": outward}]
        return [Phase("train", epochs, self.step, adam=torch.optim.Adam(groups, self.lr, fused=True))]
