"""Recurrent autoencoder: an image is a sequence, read row by row.

    encoder:  h_t = cell(h_(t-1), row_t)           z = W h_T + a
    decoder:  s_t = cell(s_(t-1), z)               s_0 = tanh(V z + c)
              row^_t = sigmoid(U s_t + b)          L = mean (x - x^)^2

Sutskever et al. 2014 for the pair of cells, Srivastava et al. 2015 for their
use as an autoencoder; a cell is an LSTM (Hochreiter & Schmidhuber 1997) or a
GRU (Cho et al. 2014). A row is a time step: T = H steps of C x W values. Both
cells go from top to bottom.

There is no teacher forcing: at no step is the decoder given the row before,
neither the true one nor its own. All it knows of the image is z, which it
gets at every step. So training and evaluation compute the same thing, and
mistakes in one row are not read by the next. With the true row before it the
decoder could do well by copying that row, and would need z the less.

The model teaches that a state of fixed size can hold a sequence, and that a
sequence is an awkward view of an image: a row has no neighbour but the last.
In its pictures compare the upper rows with the lower ones, and the strokes
with those of `convolutional` at the same size of the code.
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
        latent_dim: Annotated[int, Ge(1), "Dimension D of the code z."] = 30,
        cell: Annotated[Literal["lstm", "gru"], "Recurrent cell of the encoder and of the decoder."] = "gru",
        hidden: Annotated[int, Ge(1), "Size of the hidden state of each cell."] = 256,
        lr: Annotated[float, Gt(0), "Learning rate of Adam."] = 2e-3,
    ) -> None:
        super().__init__()
        self.lr = lr
        self.channels, self.height, self.width = image
        kind = nn.LSTM if cell == "lstm" else nn.GRU
        self.reader = kind(self.channels * self.width, hidden, batch_first=True)  # the encoder's cell
        self.code = nn.Linear(hidden, latent_dim)  # W, a
        self.start = nn.Linear(latent_dim, hidden)  # V, c
        self.writer = kind(latent_dim, hidden, batch_first=True)  # the decoder's cell
        self.row = nn.Linear(hidden, self.channels * self.width)  # U, b

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return F.mse_loss(self.decode(self.encode(x)), x), {}

    def encode(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).flatten(2)  # (B, T, C W)
        h, _ = self.reader(rows)  # (B, T, hidden)
        return self.code(h[:, -1])  # (B, D)

    def decode(self, z: Tensor) -> Tensor:
        s_0 = self.start(z).tanh().unsqueeze(0)  # (1, B, hidden)
        if isinstance(self.writer, nn.LSTM):
            s_0 = (s_0, s_0.new_zeros(s_0.shape))  # an LSTM has a memory as well, empty at first
        inputs = z.unsqueeze(1).expand(-1, self.height, -1)  # (B, T, D)
        s, _ = self.writer(inputs, s_0)  # (B, T, hidden)
        rows = self.row(s).sigmoid()  # (B, T, C W)
        return rows.unflatten(2, (self.channels, self.width)).transpose(1, 2)  # (B, C, H, W)
