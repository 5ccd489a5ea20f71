"""One training in several processes, which torchrun starts. The first leads; the others train with it, and write nothing.

Each process runs the same command. The first does all that a training in one process does: it plans, finds or starts the run,
logs, draws and saves. The others wait to be told what is trained, and with which weights.
"""

import io
import logging
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from aelab.errors import UserError
from aelab.recipe import Recipe
from aelab.training import Group, PeerLostError, StepDone, Trainer, differences, torchrun
from aelab.workflows.planning import Plan, open_configured
from aelab.workflows.signals import signals

log = logging.getLogger(__name__)

_trained: list[bool] = []  # whether this process has trained in a group
STOPPED = 128  # and the number of the signal: the exit code


def joined(data_dir: Path | str | None) -> Group | None:
    """The group of this process if torchrun started several, else None. In those that do not lead this never returns.

    They train with the one that leads, and exit: with 0 at the end of the training, else with the code of the reason.
    """
    launched = torchrun()
    if not launched or launched.size == 1:
        return None
    if _trained:  # of which only the process that leads is left
        raise UserError("a script that torchrun starts can train once: the other processes have ended.", code=2)
    _trained.append(True)
    group = Group(launched)
    if group.rank:
        _assist(group, data_dir)
    return group


def refuse_torchrun(what: str) -> None:
    """Raises UserError if torchrun started several processes for something that is no single training."""
    launched = torchrun()
    if launched and launched.size > 1:
        raise UserError(
            f"torchrun has started {launched.size} processes of {what}; it can divide a single training.",
            "Use it with aelab train or aelab resume.",
            code=2,
        )


def check_divisible(planned: Plan, group: Group | None) -> None:
    """Raises UserError if the processes cannot have equally many images of each batch."""
    settings, images = planned.config.settings, len(planned.data.train)
    batch = min(settings.batch_size, images)
    if group and batch % group.size:
        what = f"--batch-size {batch}" if batch == settings.batch_size else f"a batch of all {batch} training images"
        raise UserError(
            f"{what} cannot be divided by {group.size} processes.",
            f"Use a --batch-size that is a multiple of {group.size}, or another number of processes.",
            code=2,
        )


def prepare(group: Group, planned: Plan, recipe: Recipe) -> None:
    """Has the others build the recipe, and tries whether a step of all is a step of one.

    Raises UserError if a process cannot build it or has other data, or if the step is another.
    """
    _check_device(planned, group)
    group.from_first((planned.config, planned.recipe_file, planned.data.fingerprint, _packed(recipe.state_dict())))
    for rank, problem in enumerate(group.of_all("")):
        if problem:
            raise UserError(f"process {rank} of {group.size}: {problem}")
    data = planned.data.to(next(recipe.parameters()).device)
    if wrong := differences(recipe, data, planned.config.settings, group):
        raise UserError(
            f"{planned.recipe_file.name} cannot be trained by {group.size} processes with these options: a step that they share "
            "is not the step of one.",
            f"They differ in: {wrong}",
            "Train it in one process.",
        )


def begin(trainer: Trainer, group: Group) -> None:
    """Sends the state of a trainer to the others, and so lets them begin."""
    group.from_first(_packed((trainer.state_dict(), trainer.recipe.state_dict(), trainer.best_weights)))


def any_caught(caught: "list[signal.Signals]", group: Group | None) -> bool:
    """Whether a signal has asked this process to stop, or in a group any of its processes, so that all stop at one step."""
    if group and group.any(bool(caught)) and not caught:
        caught.append(signal.SIGTERM)
    return bool(caught)


def _check_device(planned: Plan, group: Group) -> None:
    """Raises UserError if a process of this machine has no device of its own."""
    name = planned.config.settings.device
    if name.startswith("cuda:") or (name != "cpu" and torch.cuda.is_available() and not group.enough_gpus):
        what = f"--device {name}" if name.startswith("cuda:") else f"this machine has {torch.cuda.device_count()} GPUs"
        raise UserError(f"{what}: each of the {group.size} processes needs a GPU of its own.", code=2)
    if name in ("auto", "mps") and torch.backends.mps.is_available():
        raise UserError("Apple's GPU cannot be shared by several processes; use --device cpu.", code=2)


def _assist(group: Group, data_dir: Path | str | None) -> NoReturn:
    """Trains with the process that leads, and exits."""
    logging.getLogger("aelab").setLevel(logging.CRITICAL)  # the one that leads says it all
    with signals() as caught:
        try:
            trainer = _built(group, data_dir)
            trainer.load_state_dict(*_unpacked(group.from_first()))
            for event in trainer:
                if isinstance(event, StepDone) and any_caught(caught, group):
                    raise SystemExit(STOPPED + caught[0])
        except (UserError, SystemExit) as problem:
            with suppress(PeerLostError):
                group.from_first()  # waits for its end: torchrun ends all as soon as one has failed
            raise SystemExit(problem.code) from None
        group.leave()
    raise SystemExit(0)


def _built(group: Group, data_dir: Path | str | None) -> Trainer:
    """The trainer of what the process that leads has planned, once all have tried a step."""
    config, recipe_file, fingerprint, weights = group.from_first()
    problem, trainer = "", None
    try:
        planned = Plan(config, recipe_file, open_configured(config, data_dir))
        if planned.data.fingerprint != fingerprint:
            raise UserError("it has other images than the first process.")
        recipe = planned.build()
        recipe.load_state_dict(_unpacked(weights))
        trainer = Trainer(recipe, planned.data.to(next(recipe.parameters()).device), config.settings, group)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # whatever it is, the first process says it
        problem = str(error) or type(error).__name__
    stopped = any(group.of_all(problem))
    if trainer is None or stopped or differences(trainer.recipe, trainer.data, trainer.settings, group):
        raise SystemExit(1)
    return trainer


def _packed(values: Any) -> bytes:
    """Tensors and plain values as bytes."""
    buffer = io.BytesIO()
    torch.save(values, buffer)
    return buffer.getvalue()


def _unpacked(content: bytes) -> Any:
    return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
