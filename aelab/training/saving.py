"""When the state of a trainer is saved, and what happens if the disk does not take it."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aelab.errors import UserError
from aelab.training import checkpoint
from aelab.training.checkpoint import Checkpoint
from aelab.training.trainer import DivergedError, Trainer
from aelab.training.weights import not_finite

log = logging.getLogger(__name__)

SAVE_SECONDS = 30.0  # between two checkpoints: the most that a kill can lose


class Checkpoints:
    """Saves the checkpoints of one training in `folder`; `facts` go into each manifest."""

    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        self.error = ""  # why the last one could not be written
        self._saved_at = self._counted_to = time.monotonic()

    def due(self) -> bool:
        """Whether SAVE_SECONDS have passed since the last checkpoint."""
        return time.monotonic() - self._saved_at > SAVE_SECONDS

    def save(self, trainer: Trainer) -> None:
        """Saves the state of a trainer. If the disk does not take it, this only warns, and `error` says why.

        Raises DivergedError if the weights are not finite; the checkpoints before stay.
        """
        at = trainer.progress
        if name := not_finite(trainer.recipe):
            raise DivergedError(at.step, f"{name} is not finite", at.skipped, intact=False)
        now = time.monotonic()
        at.spent, self._counted_to = at.spent + now - self._counted_to, now
        best = trainer.best_weights
        try:
            if best:
                checkpoint.save(self.folder, "best", at.best_step, best, {}, self.facts)
            is_best = bool(best) and not trainer.average and at.best_step == at.step
            facts = {**self.facts, "best": is_best}
            checkpoint.save(self.folder, "last", at.step, trainer.recipe.state_dict(), trainer.state_dict(), facts)
            self.error = ""
            log.debug(f"checkpoint at step {at.step:,} in {self.folder}")
        except OSError as error:
            self.error = f"{error.strerror or error} ({self.folder})"
            log.warning(f"the checkpoint at step {at.step} was not written: {self.error}")
        self._saved_at = time.monotonic()


def restore(trainer: Trainer, last: Checkpoint, best: Checkpoint | None) -> None:
    """Loads a checkpoint into a trainer. Raises UserError if it does not belong to this recipe with these options."""
    try:
        trainer.load_state_dict(last.state, last.weights, best.weights if best else None)
        if trainer.progress.step != last.manifest["step"]:
            raise ValueError(f"its progress is step {trainer.progress.step}")
    except ValueError as error:
        raise UserError(f"checkpoint {last.path} is not of this recipe with these options: {error}") from error
