"""The training loop: phases, epochs and steps of any recipe, as events. It has no side effects beyond tensors.

    trainer = Trainer(recipe, data, settings)
    for event in trainer:
        match event:
            case StepDone(step, means): ...
            case EpochDone(epoch): ...

The caller decides what to do with an event, and may stop after any. A trainer that is iterated again, or that has loaded
the state of another one, continues bit for bit. No recipe is named here. The metrics of a step stay on the device and are
read every few steps only. The order of the images is a function of the seed and the epoch, so the whole state consists of
weights, optimizers, random state and progress (`state`).
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from aelab.data import Dataset, Split
from aelab.errors import UserError
from aelab.evaluation import evaluate_loss
from aelab.recipe import NonFiniteError, Phase, Recipe
from aelab.training import state
from aelab.training.augmentation import augment, kinds
from aelab.training.events import EpochDone, Event, PhaseStopped, StepDone, StepSkipped
from aelab.training.group import Group
from aelab.training.settings import Progress, Settings, rate_factor
from aelab.training.shared_step import SharedStep
from aelab.training.weights import average

CURVE_POINTS = 1000  # in a metric's curve over steps, at most


class DivergedError(UserError):
    """The loss, a gradient or a weight is not finite after step `step`. `intact` says whether the weights still are."""

    def __init__(self, step: int, reason: str, skipped: int, intact: bool) -> None:
        skip = f"has skipped {skipped}" if skipped else "N skips N"
        super().__init__(
            f"training stopped before step {step + 1}: {reason}.",
            f"The last finite weights are kept. A smaller --lr usually helps; --skip-nonfinite {skip} such steps.",
        )
        self.reason, self.intact = reason, intact


class Trainer:
    """One training of one recipe on `data`, on the device that both are on.

    After the training `recipe` has its last weights; `keep_best` loads the best ones. With a `group` each of its processes has
    such a trainer, and all take the same steps, each with its rows of every batch.
    """

    def __init__(self, recipe: Recipe, data: Dataset, settings: Settings, group: Group | None = None) -> None:
        self.recipe, self.data, self.settings, self.group = recipe, data, settings, group
        self.device = next(recipe.parameters()).device
        self.average = average(recipe, settings.ema) if settings.ema else None
        self.batch_size = min(settings.batch_size, len(data.train))
        self.rows = group.rows(self.batch_size) if group else slice(None)
        self.augmentations = kinds(settings.augment) if settings.augment else ()
        self.batches = settings.steps_an_epoch(len(data.train))
        self.phases = recipe.phases(settings.epochs)
        self.sources = [self._sources(phase) for phase in self.phases]
        self.rates = [[[g["lr"] for g in o.param_groups] for o in phase.optimizers.values()] for phase in self.phases]
        steps = sum(phase.epochs for phase in self.phases) * self.batches
        self.steps = min(steps, settings.max_steps or steps)
        self.epochs = math.ceil(self.steps / self.batches)
        self.window = math.ceil(self.steps / CURVE_POINTS)  # steps that one point of a curve averages
        self.progress = Progress()
        precise = torch.float32 if self.device.type == "mps" else torch.float64
        self.sums = self.window_sums = torch.zeros(0, dtype=precise)
        self.best_weights: dict[str, Tensor] = {}

    @property
    def kept(self) -> Recipe:
        """The recipe with the weights that are validated, drawn and saved as the best: their average if there is one."""
        return cast("Recipe", self.average.module) if self.average else self.recipe

    @property
    def title(self) -> str:
        """The phase and the epoch that are next or in progress."""
        at = self.progress
        name = f"{self.phases[at.phase].name}, " if len(self.phases) > 1 and at.phase < len(self.phases) else ""
        return f"{name}epoch {min(at.epochs + 1, self.epochs)}/{self.epochs}"

    @property
    def out_of_patience(self) -> bool:
        """Whether `patience` epochs have passed without an improvement, so that the phase ends."""
        return self.settings.patience is not None and self.progress.since_best >= self.settings.patience

    def state_dict(self) -> dict[str, Any]:
        """All that a resume needs beside the weights; plain types and tensors only."""
        return state.of(self)

    def load_state_dict(
        self, values: Mapping[str, Any], weights: Mapping[str, Tensor], best: Mapping[str, Tensor] | None
    ) -> None:
        """Loads a state. Raises ValueError if a trainer of this recipe with these settings cannot have written it.

        `best` holds the best weights so far; without them, the next validation counts as the best.
        """
        state.load(self, values, weights, best)

    def keep_best(self) -> None:
        """Loads the best weights into the recipe, or the last ones if no metric is monitored."""
        self.recipe.load_state_dict(self.best_weights or self.kept.state_dict())
        self.average = None

    def __iter__(self) -> Iterator[Event]:
        """Trains to the end. Raises DivergedError if a loss or gradient is not finite, unless the settings skip such steps."""
        at = self.progress
        while at.phase < len(self.phases):
            phase = self.phases[at.phase]
            while at.epoch < phase.epochs and not self.out_of_patience:
                if at.step >= self.steps and not at.batch:  # with a batch, its epoch is not yet validated
                    break
                yield from self._epoch(phase)
            if self.out_of_patience and at.epoch < phase.epochs:
                yield PhaseStopped(phase.name if len(self.phases) > 1 else "", at.since_best, at.epochs)
            at.phase += 1
            if at.phase < len(self.phases):  # another phase, another loss
                at.epoch, at.best, at.since_best = 0, math.inf, 0

    def _epoch(self, phase: Phase) -> Iterator[Event]:
        """Trains the rest of one epoch, and validates."""
        at, title = self.progress, self.title
        self.recipe.train()
        for indices in zip(*(order[at.batch :] for order in self.orders()), strict=True):
            if at.step >= self.steps:
                break
            started = time.perf_counter()
            skipped = self.take(phase, indices)
            if self.average:
                self.average.update_parameters(self.recipe)
            means = self._window_means() if at.step % self.window == 0 or at.step == self.steps else None
            at.seconds += time.perf_counter() - started
            if skipped:
                yield StepSkipped(at.step, skipped, at.skipped)
            yield StepDone(at.step, means, at.batch * self.batch_size / at.seconds)
        yield self._end_epoch(title)

    def orders(self) -> list[Tensor]:
        """The indices of the images of this epoch's batches, (batches, B), in each source of the phase."""
        at, length = self.progress, self.batches * self.batch_size
        return [
            split.shuffled(self.settings.seed, at.phase, at.epoch, k, length=length).view(self.batches, -1)
            for k, split in enumerate(self.sources[at.phase])
        ]

    def take(self, phase: Phase, indices: Sequence[Tensor]) -> str:
        """One step of a phase with the images at `indices`, (B,) for each source; a process of a group takes its rows.

        Returns why the step was skipped, or an empty string.
        """
        sources = self.sources[self.progress.phase]
        parts = [split.batch(index[self.rows]) for split, index in zip(sources, indices, strict=True)]
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        with SharedStep(self.group, self.recipe, len(parts[0][0])) if self.group else nullcontext():
            return self.step(phase, augment(x, self.augmentations), y)

    def _sources(self, phase: Phase) -> list[Split]:
        """The splits that each batch of a phase draws from, equally many images from each."""
        train = self.data.train
        chosen = train.labelled(phase.labels, self.settings.seed) if phase.labels else train
        hidden = replace(train, labels=torch.full_like(train.labels, -1))
        return [chosen, hidden] if phase.unlabelled else [chosen]

    def step(self, phase: Phase, x: Tensor, y: Tensor) -> str:
        """One step of a phase with x (B, C, H, W) and y (B,). Returns why it was skipped, or an empty string."""
        at = self.progress
        self._set_rates(phase)
        may_skip = at.skipped < self.settings.skip_nonfinite
        before = [buffer.clone() for buffer in self.recipe.buffers()] if may_skip else []
        try:
            with self._precision():
                metrics = phase.step(x, y, **phase.optimizers)
        except NonFiniteError as error:
            if not may_skip:
                raise DivergedError(at.step, str(error), at.skipped, intact=True) from error
            for buffer, value in zip(self.recipe.buffers(), before, strict=True):
                buffer.copy_(value)  # the forward pass may have ruined running averages of batch normalisation
            at.skipped, at.batch, at.step = at.skipped + 1, at.batch + 1, at.step + 1
            return str(error)
        values = torch.stack([value.detach().to(self.sums.dtype) for value in metrics.values()])
        if self.group:
            values = self.group.mean(values)
        if not at.summed:
            at.names, self.sums = list(metrics), torch.zeros_like(values)
        if not at.windowed:
            self.window_sums = torch.zeros_like(values)
        self.sums += values
        self.window_sums += values
        at.summed, at.windowed, at.batch, at.step = at.summed + 1, at.windowed + 1, at.batch + 1, at.step + 1
        return ""

    def _set_rates(self, phase: Phase) -> None:
        """Sets the learning rates, which depend on the progress only, so that a schedule has no state."""
        at = self.progress
        factor = rate_factor(self.settings, at.epoch * self.batches + at.batch, phase.epochs * self.batches)
        for optimizer, rates in zip(phase.optimizers.values(), self.rates[at.phase], strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def _precision(self) -> AbstractContextManager[Any]:
        half = self.settings.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()

    def _window_means(self) -> dict[str, float] | None:
        """The means of the metrics since the last time; None if every step since then was skipped."""
        at = self.progress
        if not at.windowed:
            return None
        means = dict(zip(at.names, (self.window_sums / at.windowed).tolist(), strict=True))
        at.windowed = 0
        for name in ("loss", "d_loss"):  # of a recipe that does not use `descend`
            if not math.isfinite(means.get(name, 0.0)):
                raise DivergedError(at.step, f"the loss is {means[name]}", at.skipped, intact=False)
        return means

    def _end_epoch(self, title: str) -> EpochDone:
        at = self.progress
        means = dict(zip(at.names, (self.sums / at.summed).tolist(), strict=True)) if at.summed else {}
        speed, seconds = at.batch * self.batch_size / at.seconds, at.seconds
        held_out = self._validated()
        at.epoch, at.epochs, at.batch, at.summed, at.seconds = at.epoch + 1, at.epochs + 1, 0, 0, 0.0
        improved = self._keep_if_best(held_out)
        return EpochDone(at.epochs, title, means, held_out, improved, seconds, speed, at.step == self.steps)

    def _validated(self) -> dict[str, float]:
        """The metrics on the validation images. In a group one process computes them, so that all decide the same."""
        if not self.group:
            return evaluate_loss(self.kept, self.data.val)
        first = self.group.rank == 0
        return cast(
            "dict[str, float]", self.group.from_first(evaluate_loss(self.kept, self.data.val) if first else None)
        )

    def _keep_if_best(self, held_out: Mapping[str, float]) -> bool:
        """Copies the weights if the monitored metric is the best so far, or if none is monitored. Returns whether it did."""
        at, monitor = self.progress, self.recipe.monitor
        at.since_best += monitor is not None
        at.latest = math.inf if monitor is None else held_out[monitor]
        if monitor is not None and not at.latest < at.best:
            return False
        at.best, at.best_step, at.since_best = at.latest, at.step, 0
        self.best_weights = {k: v.detach().clone() for k, v in self.kept.state_dict().items()}
        return True
