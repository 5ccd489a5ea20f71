"""What a trainer tells while it trains."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepDone:
    """A step was taken. Every few steps `means` holds the means of the step's metrics since the last time, else None."""

    step: int
    means: Mapping[str, float] | None
    images_per_second: float


@dataclass(frozen=True)
class StepSkipped:
    """A step was not taken, as its loss or gradient was not finite; so many were skipped by now."""

    step: int
    reason: str
    skipped: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is over and the weights are validated.

    `train` holds the means of the step's metrics over the epoch, `val` the metrics on the validation images. `improved`
    says whether these weights are the ones to keep so far. `seconds` are those of the training steps alone.
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
    """A phase ended early: `patience` epochs brought no better validation."""

    phase: str
    patience: int
    epoch: int


Event = StepDone | StepSkipped | EpochDone | PhaseStopped
