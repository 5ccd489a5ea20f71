"""The training loop: phases, epochs and steps of any recipe, checkpointed so that it can go on from any step bit for bit.

Nothing in here names a recipe. The step keeps its figures on the device; they are read every few steps, and the order of
the samples is a function of the seed and the epoch, so the whole state is weights, optimizers, random state and a position.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from copy import deepcopy
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from aelab import aliases, figures
from aelab.console import Bar, Screen, number
from aelab.data import Dataset, Split
from aelab.errors import UserError
from aelab.evaluation.evaluate import eval_mode, evaluate
from aelab.recipe import Autoencodes, Generates, NonFiniteError, Phase, Recipe
from aelab.tracking import RunWriter, named_well
from aelab.training import checkpoint
from aelab.training.checkpoint import Checkpoint
from aelab.training.settings import Progress, Settings, made, rate_factor
from aelab.training.weights import average, load, not_finite

SAVE_SECONDS = 30.0  # between two checkpoints; what a kill can cost
MOST_POINTS = 1000  # of a curve by step
MOST_PICTURES = 20  # of one slider, each of them two files: MLflow shows one and opens the other
MOST_LINES = 200  # where there is no terminal
SHOWN = 32  # images in a reconstruction grid, each with its reconstruction
SAMPLES = 64


def stepped(optimizer: Optimizer) -> Optimizer:
    """A copy of an optimizer, its parameters too, after a step with a gradient of nothing but zeros."""
    copy = deepcopy(optimizer)
    for group in copy.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    copy.step()
    return copy


class Interrupted(Exception):
    """The user or the system asked for an end at `step`; everything is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


def check_names(figures: Iterable[str], of: str) -> None:
    """Raises UserError where the store would refuse the name of a recipe's figure."""
    for name in figures:
        if not named_well(f"train/{name}"):
            raise UserError(
                f"{of}: a metric cannot be called '{name}'.",
                "The name that a recipe gives it may hold letters, digits, spaces and _ - . : / only, at most 200.",
            )


class Training:
    """One training of one recipe, from the start or from a checkpoint."""

    def __init__(self, recipe: Recipe, data: Dataset, settings: Settings, run: RunWriter, screen: Screen) -> None:
        self.recipe, self.data, self.settings, self.run, self.screen = recipe, data, settings, run, screen
        self.device = next(recipe.parameters()).device
        self.average = average(recipe, settings.ema) if settings.ema else None
        self.batch_size = min(settings.batch_size, len(data.train))
        self.batches = settings.steps_an_epoch(len(data.train))
        self.phases = recipe.phases(settings.epochs)
        self.seen = [self._seen(phase) for phase in self.phases]
        self.rates = [[[g["lr"] for g in o.param_groups] for o in phase.optimizers.values()] for phase in self.phases]
        steps = sum(phase.epochs for phase in self.phases) * self.batches
        self.steps = min(steps, settings.max_steps or steps)
        self.all_epochs = math.ceil(self.steps / self.batches)
        self.window = math.ceil(self.steps / MOST_POINTS)
        self.progress = Progress()
        self.sums = self.window_sums = torch.zeros(
            0, dtype=torch.float32 if self.device.type == "mps" else torch.float64
        )
        self.best_weights: dict[str, Tensor] = {}
        self._saved_at = self._marked = time.monotonic()
        self._unsaved = ""  # why the last checkpoint could not be written
        self.facts: Mapping[str, Any] = {}
        self.shown = data.val.showcase(SHOWN)
        with eval_mode(recipe):
            self.fixed_z = recipe.sample_prior(SAMPLES) if isinstance(recipe, Generates) else None

    @property
    def judged(self) -> Recipe:
        """The recipe with the weights that are validated, drawn and kept: their average, where one is taken."""
        return cast("Recipe", self.average.module) if self.average else self.recipe

    # the state

    def state(self) -> dict[str, Any]:
        """All that a resume needs beside the weights; plain types and tensors only."""
        optimizers = [{k: o.state_dict() for k, o in phase.optimizers.items()} for phase in self.phases]
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        mps = torch.mps.get_rng_state() if self.device.type == "mps" else None
        return {
            "progress": asdict(self.progress),
            "epochs": [phase.epochs for phase in self.phases],
            "optimizers": optimizers,
            "sums": self.sums,
            "window_sums": self.window_sums,
            "average": self.average.state_dict() if self.average else None,
            "rng": torch.get_rng_state(),
            "rng_cuda": cuda,
            "rng_mps": mps,
        }

    def restore(self, last: Checkpoint, best: Checkpoint | None) -> None:
        """Goes back to a checkpoint. Raises UserError where it does not fit this recipe, or could not have been written by it."""
        try:
            position = self._checked(last)
            if best:
                load(self.recipe, best.weights)
            load(self.recipe, last.weights)
            for phase, states in zip(self.phases, last.state["optimizers"], strict=True):
                for name, optimizer in phase.optimizers.items():
                    optimizer.load_state_dict(states[name])
                    if not all(torch.isfinite(p).all() for g in stepped(optimizer).param_groups for p in g["params"]):
                        raise ValueError(f"the next step of {name} is not finite")
            if self.average:
                self.average.load_state_dict(last.state["average"])
        except (RuntimeError, KeyError, ValueError, TypeError, AttributeError) as error:
            raise UserError(f"checkpoint {last.path} is not of this recipe with these options: {error}") from error
        self.progress = position
        self._extend(last)
        self.sums = last.state["sums"].to(self.device)
        self.window_sums = last.state["window_sums"].to(self.device)
        if best:
            self.best_weights = {k: v.to(self.device) for k, v in best.weights.items()}
        else:
            self.progress.best = math.inf  # it cannot be had again: the next one is the best
        torch.set_rng_state(last.state["rng"])
        if last.state["rng_cuda"] is not None and self.device.type == "cuda":
            torch.cuda.set_rng_state(last.state["rng_cuda"], self.device)
        if last.state.get("rng_mps") is not None and self.device.type == "mps":
            torch.mps.set_rng_state(last.state["rng_mps"])

    def _checked(self, last: Checkpoint) -> Progress:
        """The position of a checkpoint. Raises ValueError where it, or another part of the state, cannot be of this training."""
        state, like = (
            {"rng_mps": None, **aliases.renamed(last.state, aliases.STATE)},
            self.state(),
        )  # older checkpoints lack it
        position = made(Progress, state.get("progress"))
        sums = torch.zeros(len(position.names), dtype=self.sums.dtype)
        like |= {"progress": asdict(position), "sums": sums, "window_sums": sums, "optimizers": []}
        empty = []  # phases none of whose optimizers has a state that it would have after a step
        for phase, states in zip(self.phases, state.get("optimizers", ()), strict=True):
            like["optimizers"].append({name: stepped(o).state_dict() for name, o in phase.optimizers.items()})
            would = any(now["state"] for now in like["optimizers"][-1].values())
            empty.append(would and not any(states[name]["state"] for name in phase.optimizers))
            for name, now in like["optimizers"][-1].items():  # what has had no gradient yet has no state
                now["state"] = {key: now["state"][key] for key in now["state"].keys() & states[name]["state"].keys()}
                groups = [[{**group, "lr": None} for group in each["param_groups"]] for each in (now, states[name])]
                if groups[0] != groups[1]:  # the learning rate is set before every step
                    raise ValueError(f"the settings of {name} are not those of this recipe")
        for name in ("rng_cuda", "rng_mps"):
            there = state.get(name)
            if there is None or (like[name] is None and isinstance(there, Tensor)):  # on another device
                like[name] = there
        if bad := checkpoint.misfit(state, like):
            raise ValueError(bad)
        if any(type(n) is not int or n > phase.epochs for n, phase in zip(state["epochs"], self.phases, strict=True)):
            raise ValueError(f"its epochs are {state['epochs']}")
        position.check(state["epochs"], self.batches, self.settings)
        done = position.epoch * self.batches + position.batch if position.phase < len(self.phases) else 0
        begun = empty[position.phase] if done > position.skipped else False
        if begun or (empty and all(empty) and position.step > position.skipped):
            raise ValueError("its optimizers have no state after steps that they took")
        if position.step != last.manifest["step"]:
            raise ValueError(f"its position is step {position.step}")
        if self.average and int(state["average"]["n_averaged"]) != position.step:
            raise ValueError(f"an average of {int(state['average']['n_averaged'])} steps")
        torch.Generator().set_state(state["rng"])  # raises for a state that is none
        return position

    def _extend(self, last: Checkpoint) -> None:
        """Takes up a finished training again where there are more epochs than it had. Raises UserError where that cannot be."""
        at, before = self.progress, last.state["epochs"]
        current = min(at.phase, len(self.phases) - 1)
        now = [phase.epochs for phase in self.phases]
        if now[:current] != before[:current]:
            over = next(k for k in range(current) if now[k] != before[k])
            raise UserError(f"--epochs: the phase '{self.phases[over].name}' is over and cannot be extended.", code=2)
        if at.phase == len(self.phases) and now[-1] > before[-1]:
            at.phase = current

    def save(self) -> None:
        """Writes the checkpoints. A disk that does not take them is a warning here and a failure at the end.

        Raises UserError, and leaves the last ones, where the weights are not finite.
        """
        if bad := not_finite(self.recipe):
            raise self._not_finite(self.progress.step, f"{bad} is not finite")
        folder = self.run.folder / "checkpoints"
        now = time.monotonic()
        self.progress.spent, self._marked = self.progress.spent + now - self._marked, now
        try:
            if self.best_weights:
                checkpoint.save(folder, "best", self.progress.best_step, self.best_weights, {}, self.facts)
            is_best = bool(self.best_weights) and not self.average and self.progress.best_step == self.progress.step
            facts = {**self.facts, "best": is_best}
            checkpoint.save(folder, "last", self.progress.step, self.recipe.state_dict(), self.state(), facts)
            self._unsaved = ""
        except OSError as error:
            self._unsaved = f"{error.strerror or error} ({folder})"
            self.screen.warn(f"the checkpoint at step {self.progress.step} was not written: {self._unsaved}")
        self._saved_at = time.monotonic()

    def _not_finite(self, step: int, what: str) -> UserError:
        self.run.tags({"aelab.diagnostics": f"not finite: {what}"})
        used = self.progress.skipped
        skip = f"has passed over {used}" if used else "N passes over N"
        advice = f"The last finite weights are kept. A smaller --lr usually helps; --skip-nonfinite {skip} such steps."
        return UserError(f"training stopped before step {step + 1}: {what}.", advice)

    # the loop

    def fit(self, stop: Callable[[], bool]) -> None:
        """Trains to the end. Raises Interrupted, after saving, when `stop` says so, and UserError on a non-finite loss."""
        at = self.progress
        if at.step == 0:
            self.draw()
        with self.screen.progress(self._title(), self.steps, at.step) as bar:
            while at.phase < len(self.phases):
                phase = self.phases[at.phase]
                while at.epoch < phase.epochs and at.step < self.steps and not self.patience_is_over:
                    self.epoch(phase, bar, stop)
                    if time.monotonic() - self._saved_at > SAVE_SECONDS:
                        self.save()
                if self.patience_is_over and at.epoch < phase.epochs:
                    of = f" of {phase.name}" if len(self.phases) > 1 else ""
                    self.screen.note(f"no better validation for {at.since_best} epochs: {at.epochs} is the last{of}")
                at.phase += 1
                if at.phase < len(self.phases):  # another phase, another loss
                    at.epoch, at.best, at.since_best = 0, math.inf, 0
        self.save()
        if self._unsaved:
            raise UserError(f"the last checkpoint could not be written: {self._unsaved}",
                          f"Make room, then: aelab resume {self.run.id[:8]}")  # fmt: skip

    def epoch(self, phase: Phase, bar: Bar, stop: Callable[[], bool]) -> None:
        """The rest of one epoch, and what follows it: validation, the best weights, the log and the pictures."""
        at, seen = self.progress, self.seen[self.progress.phase]
        title = self._title()
        self.recipe.train()
        started = time.perf_counter()
        place, length = (self.settings.seed, at.phase, at.epoch), self.batches * self.batch_size
        orders = [some.shuffled(*place, k, length=length).view(self.batches, -1) for k, some in enumerate(seen)]
        for indices in zip(*(order[at.batch :] for order in orders), strict=True):
            parts = [some.batch(index) for some, index in zip(seen, indices, strict=True)]
            self.step(phase, *(torch.cat(part) for part in zip(*parts, strict=True)))
            if self.average:
                self.average.update_parameters(self.recipe)
            if at.step % self.window == 0 or at.step == self.steps:
                self._log_window(bar, title, started)
            if (stopping := stop()) or time.monotonic() - self._saved_at > SAVE_SECONDS:
                at.seconds, started = at.seconds + time.perf_counter() - started, time.perf_counter()
                self.save()
            if stopping:
                raise Interrupted(at.step)
            if at.step >= self.steps:
                break
        at.seconds += time.perf_counter() - started
        self._end_epoch(title)

    def _seen(self, phase: Phase) -> list[Split]:
        """What each batch of the phase draws from, as many images of one as of the other."""
        train = self.data.train
        some = train.labelled(phase.labels, self.settings.seed) if phase.labels else train
        return [some, replace(train, labels=torch.full_like(train.labels, -1))] if phase.unlabelled else [some]

    def _title(self) -> str:
        at = self.progress
        name = f"{self.phases[at.phase].name}, " if len(self.phases) > 1 and at.phase < len(self.phases) else ""
        return f"{name}epoch {min(at.epochs + 1, self.all_epochs)}/{self.all_epochs}"

    def step(self, phase: Phase, x: Tensor, y: Tensor) -> None:
        at = self.progress
        self._set_rates(phase)
        skipping = at.skipped < self.settings.skip_nonfinite
        before = [buffer.clone() for buffer in self.recipe.buffers()] if skipping else []
        try:
            with self._precision():
                figures = phase.step(x, y, **phase.optimizers)
        except NonFiniteError as error:
            if not skipping:
                with suppress(UserError):  # the forward pass may have ruined the averages of a batch normalisation
                    self.save()  # the step was not taken: the weights are finite still
                raise self._not_finite(at.step, str(error)) from error
            for buffer, value in zip(self.recipe.buffers(), before, strict=True):
                buffer.copy_(value)
            at.skipped, at.batch, at.step = at.skipped + 1, at.batch + 1, at.step + 1
            self.screen.warn(f"step {at.step} is not taken: {error} ({at.skipped} of {self.settings.skip_nonfinite})")
            return
        values = torch.stack([value.detach().to(self.sums.dtype) for value in figures.values()])
        if not at.summed:
            if at.names != list(figures):
                check_names(figures, type(self.recipe).__name__)
            at.names, self.sums = list(figures), torch.zeros_like(values)
        if not at.windowed:
            self.window_sums = torch.zeros_like(values)
        self.sums += values
        self.window_sums += values
        at.summed, at.windowed, at.batch, at.step = at.summed + 1, at.windowed + 1, at.batch + 1, at.step + 1

    def _set_rates(self, phase: Phase) -> None:
        """Sets the learning rates, a function of the position alone."""
        at = self.progress
        factor = rate_factor(self.settings, at.epoch * self.batches + at.batch, phase.epochs * self.batches)
        for optimizer, rates in zip(phase.optimizers.values(), self.rates[at.phase], strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * factor

    def _precision(self) -> AbstractContextManager[Any]:
        half = self.settings.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()

    def _log_window(self, bar: Bar, title: str, started: float) -> None:
        at = self.progress
        if not at.windowed:
            return
        means = dict(zip(at.names, (self.window_sums / at.windowed).tolist(), strict=True))
        at.windowed = 0
        if not math.isfinite(means.get("loss", 0.0)):  # a recipe that does not use `descend`
            raise self._not_finite(at.step, f"the loss is {means['loss']}")
        self.run.metrics({f"step/{name}": value for name, value in means.items()}, at.step)
        speed = at.batch * self.batch_size / (at.seconds + time.perf_counter() - started)
        terms = "  ".join(f"{name} {number(value)}" for name, value in means.items())
        bar.update(at.step, title, f"{speed:,.0f} images/s  {terms}")

    def _end_epoch(self, title: str) -> None:
        at = self.progress
        means = dict(zip(at.names, (self.sums / at.summed).tolist(), strict=True)) if at.summed else {}
        speed = at.batch * self.batch_size / at.seconds
        held_out = evaluate(self.judged, self.data.val)
        at.epoch, at.epochs, at.batch, at.summed = at.epoch + 1, at.epochs + 1, 0, 0
        self.run.metrics({f"train/{name}": value for name, value in means.items()}, at.epochs)
        self.run.metrics({f"val/{name}": value for name, value in held_out.items()}, at.epochs)
        self.run.metrics({"train/images_per_second": speed, "train/seconds": at.seconds}, at.epochs)
        at.seconds = 0.0
        self._keep_best(held_out)
        last = at.step == self.steps
        if last or at.epochs % math.ceil(self.all_epochs / MOST_PICTURES) == 0:
            self.draw()
        if not self.screen.err.is_terminal and (last or at.epochs % math.ceil(self.all_epochs / MOST_LINES) == 0):
            terms = (("train", means), ("val", held_out))
            line = "  ".join(f"{split}/{k} {number(v)}" for split, figures in terms for k, v in figures.items())
            self.screen.note(f"{title}  {line}  {speed:,.0f} images/s")

    def _keep_best(self, held_out: Mapping[str, float]) -> None:
        at, monitor = self.progress, self.recipe.monitor
        at.since_best += monitor is not None
        at.latest = math.inf if monitor is None else held_out[monitor]
        if monitor is None or held_out[monitor] < at.best:
            at.best, at.best_step, at.since_best = at.latest, at.step, 0
            self.run.metrics({f"best/{name}": value for name, value in held_out.items()}, at.epochs)
            self.best_weights = {k: v.detach().clone() for k, v in self.judged.state_dict().items()}

    @property
    def patience_is_over(self) -> bool:
        """Whether so many epochs were no better that the training is to end."""
        return self.settings.patience is not None and self.progress.since_best >= self.settings.patience

    def draw(self) -> None:
        """Logs the pictures of this epoch: reconstructions under their inputs, samples from a fixed z."""
        for name, picture in self.gallery():
            self.run.stepwise_image(f"pictures/{name}", picture, self.progress.epochs)  # a section of the UI

    def gallery(self) -> Iterator[tuple[str, figures.Picture]]:
        """The pictures of the judged weights by name."""
        recipe = self.judged
        with eval_mode(recipe):
            if isinstance(recipe, Autoencodes):
                yield "reconstructions", figures.reconstructions(recipe, self.shown)
            if self.fixed_z is not None and isinstance(recipe, Generates):
                yield "samples", figures.grid(recipe.decode(self.fixed_z))

    def use_best(self) -> None:
        """Loads the weights to keep into the recipe: the best validated, the last ones where none is the best."""
        self.recipe.load_state_dict(self.best_weights or self.judged.state_dict())
        self.average = None
