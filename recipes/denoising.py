"""Denoising autoencoder: corrupt the image, ask for the clean one.

    x~ ~ q(x~|x)        z = f(x~)        x^ = g(z)        L = mean (x - x^)^2

    gaussian:  x~ = x + level * eps,  eps ~ N(0, I)
    dropout:   each pixel is 0 with probability level, else x / (1 - level)
    masking:   each pixel is 0 with probability level, else x

The target is always the clean x (Vincent et al. 2008, 2010). The code may be
wider than the image: the noise keeps the net from learning to copy.

Of all functions of x~ the mean of the clean images that may lie behind it has
the least squared error, and with Gaussian noise of standard deviation s that
mean is known from the density p of the noisy images alone:

    x^ = E[x|x~] = x~ + s^2 grad log p(x~)

(Tweedie's formula, Robbins 1956). So (x^ - x~) / s^2 estimates the score
grad log p(x~): denoising is score matching (Vincent 2011), which diffusion
models are built on. The best linear denoiser is the Wiener filter; E[x|x~] is
not linear.

The model teaches that removing noise takes knowledge of what images look
like, and that the least squared error is a mean. In its pictures look at
strokes that the noise has hidden: they come out blurred where several clean
images are possible, and sharp where only one is.
"""

import math
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.networks import mlp
from aelab.recipe import ImageShape, Metrics, Recipe


class Denoising(Recipe):
    epochs = 30
    schedule = "cosine"
    overcomplete = True

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 512,
        hidden: Annotated[
            tuple[int, ...], Ge(1), "Widths of the hidden layers of the encoder; the decoder has them in reverse order."
        ] = (1024, 1024),
        noise: Annotated[
            Literal["gaussian", "dropout", "masking"], "How the images are corrupted; the equations are above."
        ] = "gaussian",
        level: Annotated[
            float,
            Ge(0),
            "Strength of the noise: its standard deviation if gaussian, else the probability that a pixel is 0.",
        ] = 0.5,
        lr: Annotated[float, Gt(0), "Learning rate of Adam."] = 1e-3,
    ) -> None:
        super().__init__()
        if noise != "gaussian" and level >= 1:
            raise ValueError(f"--level {level:g} of {noise} leaves no pixel; it must be below 1")
        self.image, self.noise, self.level, self.lr = image, noise, level, lr
        widths = [math.prod(image), *hidden, latent_dim]
        self.encoder = nn.Sequential(
            nn.Flatten(),
            *mlp(*widths, activation=nn.ReLU),
        )
        self.decoder = nn.Sequential(
            nn.ReLU(),
            *mlp(*reversed(widths), activation=nn.ReLU),
            nn.Sigmoid(),
            nn.Unflatten(1, image),
        )

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        loss = F.mse_loss(self.decode(self.encode(self.corrupt(x))), x)
        return loss, {"denoised_mse": loss}

    def corrupt(self, x: Tensor) -> Tensor:
        """x~, a draw from q(x~|x)."""
        if self.noise == "gaussian":
            return x + self.level * torch.randn_like(x)  # (B, C, H, W)
        kept = x * (torch.rand_like(x) >= self.level)
        return kept / (1 - self.level) if self.noise == "dropout" else kept  # (B, C, H, W)

    def encode(self, x: Tensor) -> Tensor:
        return self.encoder(x)  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)  # (B, C, H, W)

    def filters(self) -> Tensor:
        first = next(self.encoder.parameters())  # the weights of the first layer, (N, C H W)
        return first.unflatten(1, self.image)  # (N, C, H, W)
