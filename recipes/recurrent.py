"""Recurrent autoencoder: an image is a sequence, read row by row.

    encoder:  h_t = cell(h_(t-1), row_t)           z = W h_T + a
    decoder:  s_t = cell(s_(t-1), z)               s_0 = tanh(V z + c)
              row^_t = sigmoid(U s_t + b)          L = mean (x - x^)^2

Sutskever et al. 2014 for the pair of cells, Srivastava et al. 2015 for their
use as an autoencoder; a cell is an LSTM (Hochreiter & Schmidhuber 1997) or a
GRU (Cho et al. 2014). A row is a time step: T = H steps of C x W values.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from torch import Tensor, nn
from torch.nn import functional as F

from aelab.recipe import ImageShape, Metrics, Recipe


class Recurrent(Recipe):
    epochs = 15
    batch_size = 64
    schedule = "cosine"

    def __init__(
        self,
        image: ImageShape,
        *,
        latent_dim: Annotated[int, Ge(1), "dimension D of the code z"] = 30,
        cell: Annotated[Literal["lstm", "gru"], "what remembers from row to row"] = "gru",
        hidden: Annotated[int, Ge(1), "size of its state"] = 256,
        lr: Annotated[float, Gt(0), "learning rate of Adam"] = 2e-3,
    ) -> None:
        super().__init__()
        self.image, self.lr = image, lr
        channels, self.height, width = image
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.reader = kind(channels * width, hidden, batch_first=True)
        self.code = nn.Linear(hidden, latent_dim)
        self.start = nn.Linear(latent_dim, hidden)
        self.writer = kind(latent_dim, hidden, batch_first=True)
        self.row = nn.Linear(hidden, channels * width)

    def encode(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)  # (B, T, C W)
        states, _ = self.reader(rows)  # (B, T, hidden)
        z: Tensor = self.code(states[:, -1])  # (B, D)
        return z

    def decode(self, z: Tensor) -> Tensor:
        first = self.start(z).tanh().unsqueeze(0)  # (1, B, hidden)
        start = (first, first.new_zeros(first.shape)) if isinstance(self.writer, nn.LSTM) else first
        states, _ = self.writer(z.unsqueeze(1).expand(-1, self.height, -1), start)  # (B, T, hidden)
        rows = self.row(states).sigmoid()  # (B, T, C W)
        x: Tensor = rows.unflatten(2, (self.image[0], self.image[2])).transpose(1, 2)  # (B, C, H, W)
        return x

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}
