"""The settings and the progress of a training: plain values that config.json and checkpoints hold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from annotated_types import Interval
from pydantic import AfterValidator, TypeAdapter, ValidationError

from aelab.errors import reason
from aelab.training.augmentation import in_order

T = TypeVar("T")

LARGEST_SEED = 2**32 - 1  # torch's CPU generator uses 32 bits: a larger seed would repeat a smaller one
MIN_STEPS = 2000  # of a training for which no number of epochs was given

Whole = Annotated[int, Interval(ge=-(2**63), lt=2**63)]  # 64 bits, as in a tensor
Count = Annotated[int, Interval(ge=0, lt=2**63)]
Positive = Annotated[int, Interval(ge=1, lt=2**63)]


@dataclass(frozen=True)
class Settings:
    """The settings of a training that every recipe has. Raises ValueError for a value that the command line would refuse."""

    epochs: Positive
    batch_size: Positive
    seed: Annotated[int, Interval(ge=0, le=LARGEST_SEED)] = 0
    device: str = "auto"
    precision: Literal["float32", "tf32", "bfloat16"] = "float32"
    max_steps: Positive | None = None
    patience: Positive | None = None
    ema: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: Count = 0
    skip_nonfinite: Count = 0
    augment: Annotated[str, AfterValidator(in_order)] | None = None  # names with commas between them

    def __post_init__(self) -> None:
        _check(type(self), vars(self))

    def steps_an_epoch(self, images: int) -> int:
        """Full batches in an epoch of so many images. An incomplete last batch is left out, so that all steps are alike."""
        return images // min(self.batch_size, images)

    def steps(self, images: int) -> int:
        """About how many steps a training on so many images takes: a recipe of several phases may take other ones."""
        steps = self.epochs * self.steps_an_epoch(images)
        return min(steps, self.max_steps or steps)

    def long_enough(self, images: int) -> "Settings":
        """These settings with enough epochs for MIN_STEPS steps, or for max_steps if that is less."""
        fewest = min(MIN_STEPS, self.max_steps or MIN_STEPS)
        return replace(self, epochs=max(self.epochs, math.ceil(fewest / self.steps_an_epoch(images))))


@dataclass
class Progress:
    """The progress of a training: what a checkpoint holds beside tensors."""

    phase: Whole = 0
    epoch: Whole = 0  # complete epochs in this phase
    batch: Whole = 0  # batches done in this epoch
    step: Whole = 0  # over all phases
    epochs: Whole = 0  # over all phases
    best: float = math.inf  # value of the monitored metric in this phase
    best_step: Whole = 0
    latest: float = math.inf  # value of the monitored metric
    since_best: Whole = 0  # epochs
    seconds: float = 0.0  # of training in this epoch
    spent: float = 0.0  # seconds in all processes, validation and logging included
    names: list[str] = field(default_factory=list)  # of the summed metrics
    summed: Whole = 0  # steps in the sums of the epoch
    windowed: Whole = 0  # steps in the sums of the window
    skipped: Whole = 0  # steps that were skipped, as their loss or gradient was not finite

    def check(self, phases: Sequence[int], batches: int, settings: Settings) -> None:
        """Raises ValueError if a training cannot have this progress; `phases` are the epochs of each, of `batches` batches."""
        steps = sum(phases) * batches
        steps = min(steps, settings.max_steps or steps)
        cut = settings.patience is not None or self.step == steps  # phases may have ended early
        current = min(self.phase, len(phases) - 1)
        before = sum(phases[: max(0, current)])
        possible = {
            "phase": 0 <= self.phase <= len(phases) and (self.phase < len(phases) or cut),
            "epoch": 0 <= self.epoch <= phases[current],
            "epochs": (self.epoch if cut else self.epoch + before) <= self.epochs <= self.epoch + before,
            "batch": 0 <= self.batch <= batches,
            "step": self.step == min(self.epochs * batches + self.batch, steps),
            "best": self.best > -math.inf,
            "best_step": 0 <= self.best_step <= self.step,
            "since_best": 0 <= self.since_best <= self.epochs,
            "seconds": 0 <= self.seconds < math.inf,
            "spent": 0 <= self.spent < math.inf,
            "summed": 0 <= self.summed <= self.batch,
            "windowed": 0 <= self.windowed <= self.step,
            "skipped": 0 <= self.skipped <= min(self.step, settings.skip_nonfinite),
        }
        for name, can_be in possible.items():
            if not can_be:
                raise ValueError(f"{name} {getattr(self, name)!s:.60} cannot be at step {self.step!s:.60} of {steps}")


def from_values(kind: type[T], values: object) -> T:
    """Makes a dataclass from plain values. Raises ValueError for a field that is missing, unknown or not of its type."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{values!r:.60} is no {kind.__name__.lower()}")
    known = fields(kind)  # type: ignore[arg-type]  # mypy has no name for the type of a dataclass
    needed = {each.name for each in known if each.default is MISSING and each.default_factory is MISSING}
    if wrong := sorted(map(str, (values.keys() - {each.name for each in known}) | (needed - values.keys()))):
        raise ValueError(f"{wrong[0]:.60} is {'missing' if wrong[0] in needed else 'unknown'}")
    _check(kind, values)
    return kind(**values)


def parse(kind: type, name: str, value: object, *, strict: bool = False) -> Any:
    """The value of a field of a dataclass, from a text unless `strict`. Raises ValueError if it is not of the field's type."""
    try:
        return _adapters(kind)[name].validate_python(value, strict=strict)
    except ValidationError as error:
        raise ValueError(reason(error)) from None


def _check(kind: type, values: Mapping[str, Any]) -> None:
    """Raises ValueError for a value that is not of the type of its field; nothing is converted."""
    for name, value in values.items():
        try:
            _adapters(kind)[name].validate_python(value, strict=True)
        except ValidationError as error:
            raise ValueError(f"{name}: {reason(error)}") from None


@cache
def _adapters(kind: type) -> dict[str, TypeAdapter[Any]]:
    """A validator for each field of a dataclass."""
    return {name: TypeAdapter(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}


def rate_factor(settings: Settings, done: int, total: int) -> float:
    """The factor of the learning rate after `done` of `total` steps of a phase.

    `total` are those of all epochs, whatever `max_steps` is. The factor rises during the warm-up. Then `constant` leaves it
    at 1, `linear` does so for half of the steps and goes down to 0 on a line (Zhu et al. 2017), and `cosine` goes down to 0
    along half a cosine (Loshchilov & Hutter 2017).
    """
    factor = min(1.0, (done + 1) / (settings.warmup + 1))
    if settings.schedule == "linear":
        factor *= min(1.0, 2 * (1 - done / total))
    if settings.schedule == "cosine":
        factor *= (1 + math.cos(math.pi * done / total)) / 2
    return factor
