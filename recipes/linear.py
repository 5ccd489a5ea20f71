"""Linear autoencoder: without an activation, the best code is PCA.

    z = W x + a        x^ = V z + b        L = mean (x - x^)^2

At the optimum the columns of V span the first D principal directions
(Bourlard & Kamp 1988; Baldi & Hornik 1989) and b takes care of the mean.
Gradient descent finds this subspace, but not the single axes.
"""

from typing import Annotated

from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import Image, Metrics, Recipe


class Linear(Recipe):
    epochs = 20
    batch_size = 64
    schedule = "cosine"

    def __init__(
        self,
        image: Image,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 10,
        lr: Annotated[float, Gt(0), "step size of Adam"] = 1e-2,
    ) -> None:
        super().__init__()
        channels, height, width = image
        pixels = channels * height * width
        self.lr = lr
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, pixels), nn.Unflatten(1, image))

    def encode(self, x: Tensor) -> Tensor:
        z: Tensor = self.encoder(x)  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        x: Tensor = self.decoder(z)  # (B, C, H, W)
        return x

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}
