"""The events that a trainer yields."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepDone:
    """A step is done. Every few steps `means` holds the mean of each training metric since the last time, else None."""

    step: int
    means: Mapping[str, float] | None
    images_per_second: float


@dataclass(frozen=True)
class StepSkipped:
    """A step was skipped, as its loss or gradient was not finite; `skipped` counts such steps so far."""

    step: int
    reason: str
    skipped: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is done, and the weights are validated.

    `train` holds the means of the training metrics over the epoch, `val` the metrics on the validation images. `improved`
    says whether these weights are the best so far. `seconds` is the time of the training steps alone.
    """

    epoch: int
    title: str
    train: Mapping[str, float]
    val: Mapping[str, float]
    improved: bool
    seconds: float
    images_per_second: float
    last: bool


@dataclass(frozen=True)
class PhaseStopped:
    """A phase ended early, after `patience` epochs without an improved validation."""

    phase: str
    patience: int
    epoch: int


Event = StepDone | StepSkipped | EpochDone | PhaseStopped
