"""Denoising autoencoder: corrupt the image, ask for the clean one.

    x~ ~ q(x~|x)        z = f(x~)        x^ = g(z)        L = mean (x - x^)^2

    gaussian:  x~ = x + level * eps,  eps ~ N(0, I)
    dropout:   each pixel is 0 with probability level, else x / (1 - level)
    masking:   each pixel is 0 with probability level, else x

The target is always the clean x (Vincent et al. 2008, 2010). The code may be
wider than the image: what keeps it from copying is the noise. The best linear
denoiser is the Wiener filter; this one may bend.
"""

from itertools import pairwise
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import ImageShape, Metrics, Recipe


def layers(*widths: int) -> list[nn.Module]:
    """Linear layers from width to width with a ReLU between any two."""
    steps = [[nn.ReLU(), nn.Linear(m, n)] for m, n in pairwise(widths)]
    return [module for step in steps for module in step][1:]


class Denoising(Recipe):
    epochs = 30
    schedule = "cosine"
    overcomplete = True

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 512,
        hidden: Annotated[tuple[int, ...], Ge(1), "widths of the encoder's hidden layers"] = (1024, 1024),
        noise: Annotated[Literal["gaussian", "dropout", "masking"], "how images are corrupted"] = "gaussian",
        level: Annotated[float, Ge(0), "standard deviation, or share of the pixels"] = 0.5,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 1e-3,
    ) -> None:
        super().__init__()
        if noise != "gaussian" and level >= 1:
            raise ValueError(f"--level {level:g} of {noise} leaves no pixel; it must be below 1")
        channels, height, width = image
        pixels = channels * height * width
        self.noise, self.level, self.lr = noise, level, lr
        self.encoder = nn.Sequential(nn.Flatten(), *layers(pixels, *hidden, latent_dim))
        self.decoder = nn.Sequential(
            nn.ReLU(), *layers(latent_dim, *reversed(hidden), pixels), nn.Sigmoid(), nn.Unflatten(1, image)
        )

    def corrupt(self, x: Tensor) -> Tensor:
        """x~, a draw of q(x~|x)."""
        if self.noise == "gaussian":
            return x + self.level * torch.randn_like(x)
        kept = x * (torch.rand_like(x) >= self.level)
        return kept / (1 - self.level) if self.noise == "dropout" else kept

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.decoder(z)  # (B, C, H, W)
        return x

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        loss = F.mse_loss(self.decode(self.encode(self.corrupt(x))), x)
        return loss, {"denoised_mse": loss}
