"""PixelCNN: an autoregressive model, which draws an image pixel by pixel.

    log p(x) = sum_i log p(x_i | x_1, ..., x_{i-1})
    L        = - log p(x)

Pixels are in reading order: row by row, each from left to right. One net
computes all the conditional distributions at once. Its convolutions are
masked: a position sees those before it, and neither itself nor later ones.

van den Oord et al. 2016a ("Pixel recurrent neural networks"), section 3.
L: in nats per image.

The likelihood is exact. A VAE has a bound of it, an RBM a constant that one
has to estimate, a GAN none. The price: there is no code, and drawing is slow.
decode draws pixel i by its inverse cumulative distribution at a number u_i
between 0 and 1, so u gives an image; but what lies between two u means
nothing. Other models draw an image in one pass; here each pixel waits for the
one before it.

--block 2 takes the 2 x 2 binary pixels of a block as one value of 16, which
are drawn together; blocks are in reading order. That is a chain rule too, and
as exact. There are a quarter as many positions, so a net of the same cost is
wider and sees further. --block 1 is the paper's.

bernoulli: binary pixels, drawn anew as x_i ~ Bernoulli(grey value) whenever
an image is seen. logistic: the 256 levels of an 8-bit pixel, as a mixture

    p(x_i) = sum_m pi_m ( F((x_i + h - mu_m) / s_m)
                        - F((x_i - h - mu_m) / s_m) )
    F(a)   = 1 / (1 + e^-a),  h = 1/510, half a level

of logistic distributions. The first level and the last one take the rest of
the line. mu of a channel depends linearly on the channels before it (Salimans
et al. 2017, "PixelCNN++", section 2).

--conditional: p(x|y) with the class y as a bias in each layer (van den Oord
et al. 2016b, "Conditional image generation with PixelCNN decoders"). Then
p(x) = 1/K sum_y p(x|y), for equally frequent classes.

A stack of masked convolutions has a blind spot: positions to the upper right,
outside the diagonal that 3 x 3 windows climb. The 7 x 7 window of the first
layer leaves it small; van den Oord et al. 2016b remove it.

The model teaches what an exact likelihood is worth, and what it costs: log
p(x) is the best of the lecture, and nothing is encoded. In its pictures look
at samples whose strokes are sharp and whose digits are sometimes none: each
pixel fits those near it, and no code holds the whole. Completions give one
upper half several lower ones.
"""

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from annotated_types import Ge, Gt, Interval
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.functional import logsigmoid, silu
from torch.optim import Adam

from aelab.recipe import ImageShape, Metrics, Phase, Recipe

LEVELS = 256  # of an 8-bit pixel
MIXTURE = 5  # logistic distributions
LOG_S_MIN = -6.0  # of their scales, in units of the range of a pixel: 0.6 of a level

# Positions are pixels, or blocks of b x b pixels: G x J of them, where H = b G and W = b J.
Convolve = Callable[["MaskedConv", Tensor], Tensor]


class MaskedConv(nn.Conv2d):
    """A convolution that sees earlier positions only and, if `itself`, the position itself: (B, C, G, J) -> (B, C', G, J).

    The rows of the kernel are those above and the position's own, in which what comes later has weight 0.
    """

    mask: Tensor

    def __init__(self, before: int, after: int, size: int, itself: bool) -> None:
        super().__init__(before, after, (size // 2 + 1, size))
        self.reach = size // 2
        self.margin = self.reach, self.reach, self.reach, 0  # left, right, above, below
        mask = torch.ones(1, 1, self.reach + 1, size)
        mask[..., -1, self.reach + itself :] = 0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, self.margin), self.weight * self.mask, self.bias)

    def one(self, window: Tensor) -> Tensor:
        """The output at one position, (B, C'), given its window of positions, (rows, columns, B, C)."""
        weight = (self.weight * self.mask).permute(0, 2, 3, 1)  # (C', rows, columns, C)
        return F.linear(window.permute(2, 0, 1, 3).flatten(1), weight.flatten(1), self.bias)


class Layer(nn.Module):
    """A residual layer: half of the channels are convolved, and the class, if there is one, is a bias."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        half = (width + 1) // 2
        self.narrow = nn.Conv2d(width, half, 1)
        self.masked = MaskedConv(half, half, 3, itself=True)
        self.widen = nn.Conv2d(half, width, 1)
        self.label = nn.Linear(classes, half, bias=False) if classes else None

    def forward(self, h: Tensor, y: Tensor, convolve: Convolve) -> Tensor:
        a = convolve(self.masked, silu(self.narrow(silu(h))))
        if self.label is not None:
            a = a + self.label(y)[:, :, None, None]
        return h + self.widen(silu(a))


class Memory:
    """The inputs of masked convolutions at the positions so far, for a net that computes one position after the other."""

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        height, wide = self.grid = x.shape[2:]
        self.at = 0, 0  # the present position
        self.inputs = {
            layer: x.new_zeros(height + layer.reach, wide + 2 * layer.reach, len(x), layer.in_channels)
            for layer in net.modules()
            if isinstance(layer, MaskedConv)
        }  # (G, J, B, C), with a margin: what belongs to a position lies together

    def convolve(self, layer: MaskedConv, new: Tensor) -> Tensor:
        """The output of a layer at the present position, (B, C', 1, 1), for its input there (B, C, 1, 1)."""
        self.write(layer, new[:, :, 0, 0])
        i, j = self.at
        window = self.inputs[layer][i : i + layer.reach + 1, j : j + 2 * layer.reach + 1]
        return layer.one(window)[:, :, None, None]

    def write(self, layer: MaskedConv, new: Tensor) -> None:
        """Sets the input of a layer at the present position, (B, C)."""
        i, j = self.at
        self.inputs[layer][i + layer.reach, j + layer.reach] = new

    def read(self, layer: MaskedConv) -> Tensor:
        """The inputs of a layer so far, (B, C, G, J)."""
        return self.inputs[layer][layer.reach :, layer.reach : layer.reach + self.grid[1]].permute(2, 3, 0, 1)


class Bits(nn.Module):
    """The binary pixels of a position, jointly: N bits are one of 2^N values, each with its own probability."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.outputs, self.uniforms = bits, 2**bits, 1

    def log_prob(self, out: Tensor, x: Tensor) -> Tensor:
        """log p of x (B, N, G, J), given the outputs (B, 2^N, G, J): (B, G, J)."""
        powers = 2 ** torch.arange(self.bits, device=x.device)
        values = (x.long() * powers.view(-1, 1, 1)).sum(1)  # (B, G, J)
        return -F.cross_entropy(out, values, reduction="none")

    def draw(self, out: Tensor, u: Tensor) -> Tensor:
        """x (B, N) of one position by the inverse of its cumulative distribution at u (B, 1), given outputs (B, 2^N)."""
        value = inverse(out, u)  # (B, 1)
        return (value >> torch.arange(self.bits, device=u.device) & 1).to(u.dtype)


class Levels(nn.Module):
    """The channels of an 8-bit pixel in order: r, g given r, b given r and g, as a mixture of logistic distributions."""

    levels: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pairs = [(c, d) for c in range(channels) for d in range(c)]
        self.outputs, self.uniforms = MIXTURE * (1 + 2 * channels + len(self.pairs)), channels
        self.register_buffer("levels", torch.arange(LEVELS) / (LEVELS - 1), persistent=False)

    def mixture(self, out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """log pi (M, B, ...), then mu, log s (M, C, B, ...) and the weight of channel d in mu of c, (M, pairs, B, ...)."""
        channels = self.uniforms
        parts = out.unflatten(1, (MIXTURE, -1)).movedim((1, 2), (0, 1))
        pi, mu, log_s, weights = parts.split([1, channels, channels, len(self.pairs)], 1)
        return pi[:, 0].log_softmax(0), mu + 0.5, (log_s - 2).clamp(min=LOG_S_MIN), weights.tanh()

    def mean(self, mu: Tensor, weights: Tensor, x: Tensor, c: int) -> Tensor:
        """mu of channel c (M, B, ...), given the channels before it in x (C, B, ...)."""
        return mu[:, c] + sum(weights[:, k] * x[d] for k, (of, d) in enumerate(self.pairs) if of == c)

    def log_prob(self, out: Tensor, x: Tensor) -> Tensor:
        """log p of x (B, C, G, J), given the outputs: (B, G, J)."""
        log_pi, mu, log_s, weights = self.mixture(out)
        x = x.movedim(1, 0)  # (C, B, G, J)
        for c in range(len(x)):
            log_pi = log_pi + log_mass(x[c], self.mean(mu, weights, x, c), log_s[:, c])
        return log_pi.logsumexp(0)

    def draw(self, out: Tensor, u: Tensor) -> Tensor:
        """x (B, C) of one position by the inverse of its cumulative distributions at u (B, C), given the outputs."""
        log_pi, mu, log_s, weights = self.mixture(out)  # (M, B), (M, C, B), (M, C, B), (M, pairs, B)
        x = torch.zeros_like(u.T)  # (C, B)
        for c in range(len(x)):
            mean, log_scale = self.mean(mu, weights, x, c), log_s[:, c]  # (M, B)
            mass = log_mass(self.levels, mean[..., None], log_scale[..., None])  # (M, B, 256)
            x[c] = self.levels[inverse((log_pi[..., None] + mass).logsumexp(0), u[:, c, None])[:, 0]]
            log_pi = log_pi + log_mass(x[c], mean, log_scale)  # of the components, given the channels so far
        return x.T


def log_mass(x: Tensor, mu: Tensor, log_s: Tensor) -> Tensor:
    """log of the mass of a logistic distribution between half a level below x and half a level above.

    log( F(a) - F(b) ) = log F(a) + log F(-b) + log( 1 - e^(b-a) ), where no difference of nearly equal numbers is taken.
    """
    half = 1 / (2 * (LEVELS - 1))
    a, b = (x + half - mu) / log_s.exp(), (x - half - mu) / log_s.exp()
    first, last = x < half, x > 1 - half
    below = torch.where(last, 0.0, logsigmoid(a))
    above = torch.where(first, 0.0, logsigmoid(-b))
    return below + above + torch.where(first | last, 0.0, torch.log(-torch.expm1(-2 * half / log_s.exp())))


def inverse(logits: Tensor, u: Tensor) -> Tensor:
    """The smallest value k with u < P(value <= k), (B, 1), for logits (B, values) and u (B, 1)."""
    below = logits.softmax(1).cumsum(1)[:, :-1]  # without the last, which may be rounded to less than 1
    return (below <= u).sum(1, keepdim=True)


class PixelCNN(Recipe):
    epochs = 8
    batch_size = 16  # small: what counts in so few epochs is the number of steps
    schedule = "cosine"
    warmup = 100
    ema = 0.999
    interpolates = False
    discrete = True

    def __init__(
        self,
        image: ImageShape,
        classes: int = 0,
        *,
        likelihood: Annotated[
            Literal["bernoulli", "logistic"],
            "Distribution of a pixel: bernoulli if it is drawn black or white, logistic for 256 levels of grey or colours.",
        ] = "bernoulli",
        block: Annotated[
            int,
            Interval(ge=0, le=2),
            "Side of the blocks of binary pixels that are drawn together; 0 is 2 for grey images of even sides, else 1.",
        ] = 0,
        conditional: Annotated[bool, "Learn p(x|y), for the classes y of the images."] = False,
        width: Annotated[int, Ge(1), "Channels of the net; half of them in its masked convolutions."] = 64,
        depth: Annotated[int, Ge(0), "Residual layers after the first convolution."] = 6,
        lr: Annotated[float, Gt(0), "Learning rate of Adam."] = 6e-3,
    ) -> None:
        super().__init__()
        channels, height, wide = image
        self.binary = likelihood == "bernoulli"
        fits = self.binary and channels == 1 and height % 2 == wide % 2 == 0
        if block == 2 and not fits:
            has = f"{channels} x {height} x {wide} and --likelihood {likelihood}"
            raise ValueError(f"--block 2 needs one channel, even sides and --likelihood bernoulli, not {has}")
        if conditional and classes < 2:
            raise ValueError(f"--conditional needs images of at least 2 classes, and these have {classes or 'none'}")
        self.block = b = block or 1 + fits
        self.conditional, self.classes, self.lr = conditional, classes if conditional else 0, lr
        self.grid = height // b, wide // b  # G, J
        values = channels * b * b  # at a position
        self.pixels = Bits(values) if self.binary else Levels(values)
        self.first = MaskedConv(values, width, 7, itself=False)
        self.position = nn.Parameter(torch.zeros(1, width, *self.grid).to(memory_format=torch.channels_last))
        self.layers = nn.ModuleList(Layer(width, self.classes) for _ in range(depth))
        self.last = nn.Conv2d(width, self.pixels.outputs, 1)

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return -self.log_likelihood(self.observe(x), y).mean(), {}

    def phases(self, epochs: int) -> list[Phase]:
        adam = Adam(self.parameters(), self.lr, betas=(0.9, 0.99), fused=True)
        return [Phase("train", epochs, self.training_step, adam=adam)]

    def observe(self, x: Tensor) -> Tensor:
        """What p(x) is a distribution of: zeros and ones drawn from the grey values, or the nearest of 256 levels."""
        return torch.bernoulli(x) if self.binary else (x * (LEVELS - 1)).round() / (LEVELS - 1)  # (B, C, H, W)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(x) in nats, (B,), of observed images x; with --conditional log 1/K sum_y p(x|y)."""
        labels = [torch.full((len(x),), k, device=x.device) for k in range(max(1, self.classes))]
        return torch.stack([self.log_likelihood(x, y) for y in labels]).logsumexp(0) - math.log(len(labels))

    def log_likelihood(self, x: Tensor, y: Tensor) -> Tensor:
        """log p(x) or, with --conditional, log p(x|y) in nats, (B,), of observed images x and labels y."""
        x = F.pixel_unshuffle(x, self.block).contiguous(memory_format=torch.channels_last)  # (B, C b b, G, J)
        return (
            self.pixels.log_prob(self.net(x, self.one_hot(y), self.position, MaskedConv.forward), x).flatten(1).sum(1)
        )

    def one_hot(self, y: Tensor) -> Tensor:
        """Labels y (B,) as vectors (B, K); (B, 0) without --conditional."""
        return y[:, None].eq(torch.arange(self.classes, device=y.device)).to(self.position.dtype)

    def net(self, x: Tensor, y: Tensor, position: Tensor, convolve: Convolve) -> Tensor:
        """The outputs (B, C', G, J) that give the distribution at each position, for x (B, C b b, G, J) and y (B, K).

        For the whole image, `position` is the map of what is learned about each position, and `convolve` a layer's forward.
        For one position at a time, both are those of `complete`.
        """
        h = convolve(self.first, x) + position
        for layer in self.layers:
            h = layer(h, y, convolve)
        return self.last(silu(h))

    def decode(self, z: Tensor) -> Tensor:
        channels, (height, wide) = self.first.in_channels // self.block**2, self.grid
        nothing = z.new_zeros(len(z), channels, height * self.block, wide * self.block)
        return self.complete(nothing, 0, z)

    def complete(self, x: Tensor, rows: int, z: Tensor) -> Tensor:
        """Observed images x (B, C, H, W) whose blocks below the first `rows` rows are drawn anew with codes z (B, D).

        One position after the other: the inputs of each masked convolution are kept, so that a step computes one position.
        """
        u, y = z.split([z.shape[1] - self.classes, self.classes], 1)
        u = u.view(len(z), *self.grid, -1)
        x = F.pixel_unshuffle(x, self.block)  # (B, C b b, G, J)
        memory = Memory(self, x)
        for i in range(self.grid[0]):
            for j in range(self.grid[1]):
                memory.at = i, j
                out = self.net(
                    torch.zeros_like(x[:, :, :1, :1]), y, self.position[:, :, i, j, None, None], memory.convolve
                )
                known = (i + 1) * self.block <= rows
                memory.write(self.first, x[:, :, i, j] if known else self.pixels.draw(out[:, :, 0, 0], u[:, i, j]))
        return F.pixel_shuffle(memory.read(self.first), self.block)

    def sample_prior(self, n: int) -> Tensor:
        return self.sample_class(torch.randint(max(1, self.classes), (n,), device=self.position.device))

    def sample_class(self, y: Tensor) -> Tensor:
        """Codes (n, D): a uniform number for each draw and, with --conditional, the class y (n,), one-hot."""
        draws = math.prod(self.grid) * self.pixels.uniforms
        return torch.cat([torch.rand(len(y), draws, device=y.device), self.one_hot(y)], 1)
