"""How to train, and where a training stands: plain values that a checkpoint and config.json hold."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")

LARGEST_SEED = 2**32 - 1  # torch's generator of the CPU takes 32 bits: a larger one would repeat a smaller one
MOST = {"seed": LARGEST_SEED}
FEWEST_STEPS = 2000  # of a training whose epochs nobody chose


@dataclass(frozen=True)
class Settings:
    """How to train, whatever the recipe."""

    epochs: int
    batch_size: int
    seed: int = 0
    device: str = "auto"
    precision: str = "float32"
    max_steps: int | None = None
    patience: int | None = None
    ema: float = 0.0
    schedule: str = "constant"
    warmup: int = 0
    skip_nonfinite: int = 0

    def __post_init__(self) -> None:
        """Raises ValueError for what the command line would not take: config.json may say anything."""
        at_least = {
            "epochs": 1,
            "batch_size": 1,
            "seed": 0,
            "max_steps": 1,
            "patience": 1,
            "warmup": 0,
            "skip_nonfinite": 0,
        }
        for name, least in at_least.items():
            if (value := getattr(self, name)) is not None and not least <= value <= MOST.get(name, 2**63):
                raise ValueError(
                    f"{name} {value!s:.60} is {'less than ' + str(least) if value < least else 'too large'}"
                )
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema {self.ema} is not in [0, 1)")
        for name, words in (("schedule", ("constant", "cosine")), ("precision", ("float32", "tf32", "bfloat16"))):
            if (value := getattr(self, name)) not in words:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(words)}")

    def steps_an_epoch(self, images: int) -> int:
        """The rest of a shuffled epoch is left out, so that all steps are alike."""
        return images // min(self.batch_size, images)

    def long_enough(self, images: int) -> "Settings":
        """With more epochs where these would be fewer than FEWEST_STEPS steps, or than max_steps if that is less."""
        fewest = min(FEWEST_STEPS, self.max_steps or FEWEST_STEPS)
        return replace(self, epochs=max(self.epochs, math.ceil(fewest / self.steps_an_epoch(images))))


@dataclass
class Progress:
    """Where a training stands: what a checkpoint holds beside tensors."""

    phase: int = 0
    epoch: int = 0  # whole ones in this phase
    batch: int = 0  # done in this epoch
    step: int = 0  # in all phases
    epochs: int = 0  # in all phases
    best: float = math.inf
    best_step: int = 0
    latest: float = math.inf  # of the validations of this phase
    since_best: int = 0  # epochs
    seconds: float = 0.0  # of training in this epoch
    spent: float = 0.0  # seconds in all, with validation and logging, in every process that worked on it
    names: list[str] = field(default_factory=list)  # of the summed figures
    summed: int = 0  # steps in the sums of the epoch
    windowed: int = 0  # and of the window
    skipped: int = 0  # steps that were not taken, as their loss or gradient was not finite

    def check(self, phases: Sequence[int], batches: int, settings: Settings) -> None:
        """Raises ValueError where this cannot be in a training with `phases` of so many epochs of so many batches."""
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


def made(kind: type[T], values: object) -> T:
    """A dataclass of plain values. Raises ValueError for a field that is missing, unknown or not of its type."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{values!r:.60} is no {kind.__name__.lower()}")
    hints = get_type_hints(kind)
    needed = {each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING}  # type: ignore[arg-type]
    if wrong := sorted(map(str, (values.keys() - hints.keys()) | (needed - values.keys()))):
        raise ValueError(f"{wrong[0]:.60} is {'missing' if wrong[0] in needed else 'unknown'}")
    for name, value in values.items():
        if not _is(value, hints[name]):
            raise ValueError(f"{name} is {value!r:.60}")
    return kind(**values)


def _is(value: object, hint: Any) -> bool:
    """Whether a value is of a type: a simple one, several of them, or a list."""
    if isinstance(hint, UnionType):
        return any(_is(value, each) for each in get_args(hint))
    if get_origin(hint) is list:
        return isinstance(value, list) and all(_is(each, get_args(hint)[0]) for each in value)
    if hint in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63  # more fits nowhere
        return whole or (hint is float and isinstance(value, float))
    return isinstance(value, get_origin(hint) or hint)


def rate_factor(settings: Settings, done: int, total: int) -> float:
    """The factor of the learning rate after `done` of `total` steps of a phase: warm-up, then constant or half a cosine."""
    factor = min(1.0, (done + 1) / (settings.warmup + 1))
    if settings.schedule == "cosine":
        factor *= (1 + math.cos(math.pi * done / total)) / 2
    return factor
