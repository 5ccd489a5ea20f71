"""Convolutional autoencoder: all positions share the weights, so it needs few.

    z = f(x)        x^ = g(z)        L = mean (x - x^)^2

f halves the image at every step, by a convolution with stride 2 (after it
batch normalisation and a SiLU), and ends in a linear map to the code; g is
its mirror image with transposed convolutions (Masci et al. 2011; Zeiler et
al. 2010). Images of any size and any number of channels.
"""

from typing import Annotated

from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import ImageShape, Metrics, Recipe


class Convolutional(Recipe):
    epochs = 20
    batch_size = 64
    schedule = "cosine"

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 30,
        width: Annotated[int, Ge(1), "channels after the first step; each further one doubles them"] = 32,
        depth: Annotated[int, Interval(ge=1, le=6), "steps that halve the image"] = 2,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 2e-3,
    ) -> None:
        super().__init__()
        self.lr = lr
        sizes = [image[1:]]  # (H, W) after every step
        for _ in range(depth):
            sizes.append(tuple((side + 1) // 2 for side in sizes[-1]))  # type: ignore[arg-type]
        channels = [image[0], *(width << step for step in range(depth))]
        shape = (channels[-1], *sizes[-1])
        flat = shape[0] * shape[1] * shape[2]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for step in range(depth):
            less, more = channels[step], channels[step + 1]
            down += [nn.Conv2d(less, more, 3, stride=2, padding=1), nn.BatchNorm2d(more), nn.SiLU()]
            odd = tuple((side + 1) % 2 for side in sizes[step])  # an even side needs one more row
            back = nn.ConvTranspose2d(more, less, 3, stride=2, padding=1, output_padding=odd)  # type: ignore[arg-type]
            up = [back, *([nn.BatchNorm2d(less), nn.SiLU()] if step else []), *up]
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, flat), nn.SiLU(), nn.Unflatten(1, shape), *up, nn.Sigmoid())

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.decoder(z)  # (B, C, H, W)
        return x

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}
