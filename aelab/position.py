"""How to train, and where a training stands: plain values that a checkpoint and config.json hold."""

import math
from dataclasses import dataclass, field, replace

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

    def steps_an_epoch(self, images: int) -> int:
        """The rest of a shuffled epoch is left out, so that all steps are alike."""
        return images // min(self.batch_size, images)

    def long_enough(self, images: int) -> "Settings":
        """With more epochs where these would be fewer than FEWEST_STEPS steps, or than max_steps if that is less."""
        fewest = min(FEWEST_STEPS, self.max_steps or FEWEST_STEPS)
        return replace(self, epochs=max(self.epochs, math.ceil(fewest / self.steps_an_epoch(images))))


@dataclass
class Position:
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


def rate_factor(settings: Settings, done: int, total: int) -> float:
    """What the step size is multiplied by after `done` of `total` steps of a phase: warm-up, then constant or half a cosine."""
    factor = min(1.0, (done + 1) / (settings.warmup + 1))
    if settings.schedule == "cosine":
        factor *= (1 + math.cos(math.pi * done / total)) / 2
    return factor
