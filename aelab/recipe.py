"""What a recipe is: networks, a loss and one training step. Everything else is the engine's.

Shapes, here and in every recipe: B batch, C channels, H height, W width, D code, K classes.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

ImageShape = tuple[int, int, int]  # C, H, W
Schedule = Literal["constant", "cosine"]
Metrics = Mapping[str, Tensor]  # named scalars, still on the device: nobody calls .item() in a step


class NonFiniteError(ArithmeticError):
    """The loss or a gradient is NaN or infinite; the parameters have not moved."""


def descend(loss: Tensor, *optimizers: Optimizer) -> Tensor:
    """Moves the optimizers' parameters one step down the gradient of `loss`, a scalar.

    Returns the norm of that gradient. Raises NonFiniteError *before* anything moves: one NaN would
    stay in Adam's averages for good.
    """
    for optimizer in optimizers:
        optimizer.zero_grad()
    with torch.autocast(loss.device.type, enabled=False):
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    parameters = (p for optimizer in optimizers for group in optimizer.param_groups for p in group["params"])
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    if not torch.isfinite(loss.detach() + norm):
        raise NonFiniteError(f"loss {float(loss.detach()):g}, gradient norm {float(norm):g}")
    for optimizer in optimizers:
        optimizer.step()
    return norm


class Phase:
    """Some epochs of one kind of step, with the optimizers that this step moves.

    `step(x, y, **optimizers)` gets x (B, C, H, W) in [0, 1] and labels y (B,), -1 where there is none. With `labels` it
    sees only so many images, equally many of each class, over and over: an epoch has as many steps as without.
    `unlabelled` adds to each batch as many of all the images, their labels hidden: x (2 B, C, H, W), half of y -1.
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
    """Networks and their mathematics. Keyword arguments of the constructor are the command line.

    Its positional arguments say what the data are: `image`, and `classes`, their number, where the recipe classifies.
    """

    epochs: ClassVar[int] = 20  # unless told otherwise; on few images more, until there are 2,000 steps
    batch_size: ClassVar[int] = 128
    schedule: ClassVar[Schedule] = "constant"  # of the learning rate, over each phase
    warmup: ClassVar[int] = 0  # steps over which it rises from nothing
    ema: ClassVar[float] = (
        0.0  # decay of the average of the weights that is validated and kept; 0: the weights themselves
    )
    monitor: ClassVar[str | None] = "loss"  # the validation metric of the best checkpoint; None: the last is best
    overcomplete: ClassVar[bool] = False  # whether a code may hold more values than an image
    lr: float

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        """The mean loss of a batch and its terms by name: the same one trains and, held out, evaluates."""
        raise NotImplementedError

    def training_step(self, x: Tensor, y: Tensor, **optimizers: Optimizer) -> Metrics:
        """One training step."""
        loss, parts = self.loss(x, y)
        descend(loss, *optimizers.values())
        return {"loss": loss, **parts}

    def phases(self, epochs: int) -> list[Phase]:
        """The phases of a training of `epochs` epochs; most recipes have one."""
        return [
            Phase("train", epochs, self.training_step, adam=torch.optim.Adam(self.parameters(), self.lr, fused=True))
        ]


@runtime_checkable
class Encodes(Protocol):
    """Has codes: x (B, C, H, W) -> z (B, D), the mean of the posterior where there is one, never a sample."""

    def encode(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Decodes(Protocol):
    """Has images for codes: z (B, D) -> x (B, C, H, W)."""

    def decode(self, z: Tensor) -> Tensor: ...


@runtime_checkable
class Autoencodes(Encodes, Decodes, Protocol):
    """Reconstructs: x -> z -> x."""


@runtime_checkable
class HasPosterior(Encodes, Protocol):
    """Has a normal posterior over codes: x (B, C, H, W) -> its mean and log variance, both (B, D)."""

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]: ...


@runtime_checkable
class Classifies(Protocol):
    """Has classes for images: x (B, C, H, W) -> logits (B, K)."""

    def classify(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class Denoises(Autoencodes, Protocol):
    """Restores images: `corrupt` draws what it is given instead of the clean x (B, C, H, W)."""

    def corrupt(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class HasLikelihood(Protocol):
    """Has a likelihood p(x|z): a density of grey values or, if `binary`, a probability of zeros and ones."""

    binary: bool


@runtime_checkable
class ImportanceWeighted(HasLikelihood, Protocol):
    """Has a likelihood that importance sampling estimates: log p(x) ~ log mean_k w_k with w_k = p(x, z_k) / q(z_k|x)."""

    def observe(self, x: Tensor) -> Tensor: ...

    def log_weights(self, x: Tensor, samples: int) -> Tensor: ...


@runtime_checkable
class Generates(Decodes, Protocol):
    """Makes images from nothing: draws codes z (n, D) from its prior and decodes them."""

    def sample_prior(self, n: int) -> Tensor: ...
