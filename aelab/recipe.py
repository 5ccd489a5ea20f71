"""The interface of a recipe: networks, a loss and one training step. The trainer does the rest.

Shapes, here and in every recipe: B batch, C channels, H height, W width, T time steps, D dimensions of the code,
K classes, S samples. Pixels are in [0, 1].
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ImageShape = tuple[int, int, int]  # C, H, W
POINT: ImageShape = (1, 1, 2)  # a point in the plane as an image: its pixels are x, to the right, and y, upwards
Schedule = Literal["constant", "linear", "cosine"]
Metrics = Mapping[str, Tensor]  # scalars by name, still on the device: a step never calls .item()


class NonFiniteError(ArithmeticError):
    """The loss or a gradient is NaN or infinite. The parameters have not been changed."""


def descend(loss: Tensor, *optimizers: Optimizer) -> Tensor:
    """Takes one step of the optimizers down the gradient of `loss`, a scalar, with respect to their own parameters.

    Returns the norm of that gradient, a scalar. Raises NonFiniteError *before* any parameter is changed: a single NaN
    would stay in Adam's running averages for good.
    """
    for optimizer in optimizers:
        optimizer.zero_grad()
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    parameters = [p for group in groups for p in group["params"] if p.requires_grad]
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward(inputs=parameters)
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not torch.isfinite(loss.detach() + norm):
        raise NonFiniteError(f"loss {float(loss.detach()):g}, gradient norm {float(norm):g}")
    for optimizer in optimizers:
        optimizer.step()
    return norm


class Phase:
    """A number of epochs with the same training step and the same optimizers.

    `step(x, y, **optimizers)` takes images x (B, C, H, W) and labels y (B,), -1 where an image has none, and returns
    metrics. With `labels` N the phase uses only N labelled images, equally many of each class, and repeats them: an epoch
    has as many steps as with all images. `unlabelled` adds as many images to each batch, drawn from all images, with
    their labels hidden: x is then (2 B, C, H, W), and half of y is -1.
    """

    def __init__(
        self,
        name: str,
        epochs: int,
        step: Callable[..., Metrics],
        *,
        labels: int = 0,
        unlabelled: bool = False,
        **optimizers: Optimizer,
    ) -> None:
        self.name, self.epochs, self.step, self.optimizers = name, epochs, step, optimizers
        self.labels, self.unlabelled = labels, unlabelled


class Recipe(nn.Module):
    """A model: its networks, its loss and its training step.

    The positional arguments of the constructor describe the data: `image` is the shape of an image, and `classes`, for
    a recipe that uses labels, is K. Give it the default 0 if the recipe can do without: it is 0 where images have no
    labels. The keyword arguments are the options of the command line.
    """

    epochs: ClassVar[int] = 20  # the default; more for a small data set, until there are 2,000 steps
    batch_size: ClassVar[int] = 128
    schedule: ClassVar[Schedule] = "constant"  # of the learning rate, over each phase
    warmup: ClassVar[int] = 0  # steps over which the learning rate rises from 0
    ema: ClassVar[float] = 0.0  # decay of the averaged weights, which are then validated and saved; 0: no average
    monitor: ClassVar[str | None] = "loss"  # the validation metric of the best checkpoint; None: the last is kept
    overcomplete: ClassVar[bool] = False  # whether a code may hold more values than an image
    interpolates: ClassVar[bool] = True  # whether the images between two codes mean anything
    discrete: bool = False  # whether a likelihood of grey values is a probability of 256 levels, no density
    lr: float

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        """The loss of a batch, a mean over its images, and its terms by name.

        x is (B, C, H, W), y is (B,). Training minimises it; validation and evaluation compute it on held-out images.
        """
        raise NotImplementedError

    def training_step(self, x: Tensor, y: Tensor, **optimizers: Optimizer) -> Metrics:
        """One training step on images x (B, C, H, W) and labels y (B,). Returns the metrics to log, `loss` among them."""
        loss, parts = self.loss(x, y)
        descend(loss, *optimizers.values())
        return {"loss": loss, **parts}

    def phases(self, epochs: int) -> list[Phase]:
        """The phases of a training of `epochs` epochs; most recipes have a single one."""
        return [
            Phase("train", epochs, self.training_step, adam=torch.optim.Adam(self.parameters(), self.lr, fused=True))
        ]


# What a recipe can do beyond its loss follows from the methods that it has. A verb asks for one of these protocols.


@runtime_checkable
class Encodes(Protocol):
    """Maps images to codes."""

    def encode(self, x: Tensor) -> Tensor:
        """Images x (B, C, H, W) -> codes (B, D). Where there is a posterior: its mean, never a sample."""
        ...


@runtime_checkable
class Decodes(Protocol):
    """Maps codes to images."""

    def decode(self, z: Tensor) -> Tensor:
        """Codes z (B, D) -> images (B, C, H, W). Where there is a likelihood p(x|z): its mean, never a sample."""
        ...


@runtime_checkable
class Autoencodes(Encodes, Decodes, Protocol):
    """Reconstructs images: decode(encode(x))."""


@runtime_checkable
class HasPosterior(Encodes, Protocol):
    """Has an approximate posterior q(z|x): for each image a normal distribution of codes with independent dimensions."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Images x (B, C, H, W) -> the mean and the log variance of q(z|x), (B, D) each."""
        ...


@runtime_checkable
class Classifies(Protocol):
    """Predicts the class of an image."""

    def classify(self, x: Tensor) -> Tensor:
        """Images x (B, C, H, W) -> logits (B, K): log p(y|x) up to a constant."""
        ...


@runtime_checkable
class Denoises(Autoencodes, Protocol):
    """Reconstructs a clean image from a corrupted one."""

    def corrupt(self, x: Tensor) -> Tensor:
        """Clean images x (B, C, H, W) -> corrupted ones, drawn anew at each call, of the same shape."""
        ...


@runtime_checkable
class HasLikelihood(Protocol):
    """Has a likelihood: if `binary`, a probability of binary pixels, else a density of dequantised grey values.

    Dequantised is (255 x + u) / 256 with u uniform between 0 and 1. With Recipe.discrete it is a probability of 8-bit values.
    """

    binary: bool


@runtime_checkable
class ImportanceWeighted(HasLikelihood, Protocol):
    """Has a marginal likelihood p(x) that importance sampling can estimate: log p(x) ~ log 1/S sum_s w_s."""

    def observe(self, x: Tensor) -> Tensor:
        """Images x (B, C, H, W) -> the values that have the likelihood: binary pixels or dequantised values, drawn from x."""
        ...

    def log_weights(self, x: Tensor, samples: int) -> Tensor:
        """Observed images x (B, C, H, W) -> log w_s = log p(x, z_s) - log q(z_s|x) with z_s ~ q(z|x), (S, B)."""
        ...


@runtime_checkable
class ExactLikelihood(HasLikelihood, Protocol):
    """Has a marginal likelihood p(x) that can be computed."""

    def observe(self, x: Tensor) -> Tensor:
        """Images x (B, C, H, W) -> the values that have the likelihood: binary pixels or dequantised values, drawn from x."""
        ...

    def log_prob(self, x: Tensor) -> Tensor:
        """Observed images x (B, C, H, W) -> log p(x) in nats, (B,)."""
        ...


@runtime_checkable
class EnergyBased(HasLikelihood, Protocol):
    """Has a likelihood up to a constant that can be estimated: log p(x) = -F(x) - log Z."""

    def observe(self, x: Tensor) -> Tensor:
        """Images x (B, C, H, W) -> the values that have the likelihood: binary pixels or dequantised values, drawn from x."""
        ...

    def free_energy(self, x: Tensor) -> Tensor:
        """Observed images x (B, C, H, W) -> F(x) in nats, (B,)."""
        ...

    def log_partition(self, steps: int, chains: int) -> Tensor:
        """log w_c, (chains,), such that the mean of the w_c is an unbiased estimate of Z.

        Annealed importance sampling (Neal 2001) in `steps` steps.
        """
        ...


@runtime_checkable
class HasFilters(Protocol):
    """Has weights that can be looked at as images."""

    def filters(self) -> Tensor:
        """The weights of each unit, (N, C, H, W), of any sign and size."""
        ...


@runtime_checkable
class Discriminates(Protocol):
    """Tells real images from generated ones by a discriminator D(x), the probability that x is real."""

    def discriminate(self, x: Tensor, y: Tensor) -> Tensor:
        """The logit (B, 1) of D for images x (B, C, H, W); classes y (B,) count if it is conditional."""
        ...


@runtime_checkable
class Generates(Decodes, Protocol):
    """Draws new images: decode(sample_prior(n))."""

    def sample_prior(self, n: int) -> Tensor:
        """Codes z (n, D), drawn from the prior p(z)."""
        ...


@runtime_checkable
class Conditional(Generates, Protocol):
    """Draws images of a class that is asked for, if `conditional`. The last K values of a code are then its class, one-hot."""

    conditional: bool

    def sample_class(self, y: Tensor) -> Tensor:
        """Codes (n, D) of the classes y (n,); all but their last K values are drawn from the prior."""
        ...


@runtime_checkable
class Completes(ExactLikelihood, Generates, Protocol):
    """Draws what is missing of an image, given its first rows."""

    def complete(self, x: Tensor, rows: int, z: Tensor) -> Tensor:
        """Observed images x (B, C, H, W), of which the first `rows` rows are known; the others are drawn with codes z (B, D).

        A recipe that draws several rows at once keeps the known rows that it need not draw with others.
        """
        ...
