"""Linear autoencoder: without an activation, the best code is PCA.

    z = W (x - b)      x^ = V z + b      L = mean (x - x^)^2

At the optimum the columns of V span the first D principal directions
(Bourlard & Kamp 1988; Baldi & Hornik 1989), and b takes care of the mean.
Training finds this subspace, but not the single axes: W and V may be
multiplied by any invertible matrix and its inverse without a change of L.

The first directions hold most of the loss, so plain gradient descent learns
the last ones late or never: in photographs, nearly all of it is brightness.
Two things help here. Muon (Jordan et al. 2024) takes equally large steps in
all directions of a matrix. W and V start tied, W = V^T, with orthonormal
columns: a projection onto random directions.

--variational makes it the smallest VAE there is:

    p(z) = N(0, I)   p(x|z) = N(V z + b, s^2 I)   q(z|x) = N(W (x - b), R R^T)
    nll = - E_q log p(x|z)        kl = KL( q(z|x) || p(z) )
    L   = nll + kl = -ELBO, in closed form

Its optimum is probabilistic PCA (Tipping & Bishop 1999). There s^2 is the
mean of the eigenvalues of the covariance that PCA discards, and the ELBO is
log p(x) itself, as the true posterior of a linear model has the form of q
(Lucas et al. 2019). nll, kl and elbo are in nats per image, of a density of
dequantised grey values: value k of 8 bits is drawn as (k + u) / 256, u
uniform between 0 and 1, as a density has no bound on single values (Theis et
al. 2016).

The model teaches that a linear autoencoder learns what PCA computes, and
that anything better needs non-linear layers. In its pictures look at the
blur: each reconstruction is b plus a weighted sum of D fixed images, the
columns of V, and looks like that of PCA.
"""

import math
from typing import Annotated

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Muon

from aelab.recipe import ImageShape, Metrics, Phase, Recipe


class Linear(Recipe):
    epochs = 40
    batch_size = 64
    schedule = "cosine"
    monitor = None  # the last weights: at the end of the schedule they are nearest to the optimum
    binary = False

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 10,
        variational: Annotated[bool, "Train a linear VAE instead, which learns probabilistic PCA."] = False,
        lr: Annotated[
            float, Gt(0), "Learning rate of Muon, for W and V; Adam has 4 times as much, for the rest."
        ] = 5e-3,
    ) -> None:
        super().__init__()
        self.image, self.lr = image, lr
        pixels = math.prod(image)
        self.w = nn.Linear(pixels, latent_dim, bias=False)
        self.v = nn.Linear(latent_dim, pixels, bias=False)
        self.b = nn.Parameter(torch.zeros(pixels))
        nn.init.orthogonal_(self.v.weight)
        self.w.weight.data.copy_(self.v.weight.T)
        self.variational = variational
        if variational:
            self.log_s = nn.Parameter(torch.tensor(-1.0))
            self.root = nn.Parameter(-torch.eye(latent_dim))  # R: below the diagonal itself, on it its logarithm

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        if self.variational:
            return self.negative_elbo(self.observe(x))
        return F.mse_loss(self.decode(self.encode(x)), x), {}

    def observe(self, x: Tensor) -> Tensor:
        """What p(x) is a density of: dequantised grey values."""
        return (255 * x + torch.rand_like(x)) / 256  # (B, C, H, W)

    def negative_elbo(self, x: Tensor) -> tuple[Tensor, Metrics]:
        """nll + kl. Of z = mu + R eps, E |x - V z - b|^2 = |x - V mu - b|^2 + |V R|^2."""
        mu = self.encode(x)  # (B, D)
        log_r = self.root.diag()  # (D,)
        R = self.root.tril(-1) + log_r.exp().diag()  # (D, D)
        error = (x - self.decode(mu)).square().flatten(1).sum(1).mean() + (self.v.weight @ R).square().sum()
        nll = error / 2 * torch.exp(-2 * self.log_s) + x[0].numel() * (self.log_s + math.log(2 * math.pi) / 2)
        kl = (mu.square().sum(1).mean() + R.square().sum() - len(R)) / 2 - log_r.sum()
        return nll + kl, {"nll": nll, "kl": kl, "elbo": -(nll + kl)}

    def phases(self, epochs: int) -> list[Phase]:
        matrices = (self.w.weight, self.v.weight)
        others = [p for p in self.parameters() if all(p is not m for m in matrices)]
        muon = Muon(matrices, self.lr, weight_decay=0, momentum=0.9, adjust_lr_fn="match_rms_adamw")
        return [Phase("train", epochs, self.training_step, muon=muon, adam=Adam(others, 4 * self.lr, fused=True))]

    def encode(self, x: Tensor) -> Tensor:
        return self.w(x.flatten(1) - self.b)  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        x = self.v(z) + self.b  # (B, C H W)
        return x.view(-1, *self.image)  # (B, C, H, W)
