"""The state of a trainer: saved, checked against what this training could have written, and loaded."""

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from aelab import aliases
from aelab.errors import UserError
from aelab.training.settings import Progress, from_values
from aelab.training.weights import load as load_weights

if TYPE_CHECKING:
    from aelab.training.trainer import Trainer


def of(trainer: "Trainer") -> dict[str, Any]:
    """All that a resume needs beside the weights; plain types and tensors only."""
    device = trainer.device
    return {
        "progress": asdict(trainer.progress),
        "epochs": [phase.epochs for phase in trainer.phases],
        "optimizers": [{name: o.state_dict() for name, o in phase.optimizers.items()} for phase in trainer.phases],
        "sums": trainer.sums,
        "window_sums": trainer.window_sums,
        "average": trainer.average.state_dict() if trainer.average else None,
        "rng": torch.get_rng_state(),
        "rng_cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "rng_mps": torch.mps.get_rng_state() if device.type == "mps" else None,
    }


def load(
    trainer: "Trainer", values: Mapping[str, Any], weights: Mapping[str, Tensor], best: Mapping[str, Tensor] | None
) -> None:
    """Loads a state into a trainer. Raises ValueError if a trainer of this recipe with these settings cannot have written it."""
    values = deepcopy({"rng_mps": None, **aliases.renamed(values, aliases.STATE)})  # optimizers would share the tensors
    try:
        progress = _checked(trainer, values)
        if best:
            load_weights(trainer.recipe, best)  # raises where they do not fit
        load_weights(trainer.recipe, weights)
        for phase, states in zip(trainer.phases, values["optimizers"], strict=True):
            for name, optimizer in phase.optimizers.items():
                optimizer.load_state_dict(states[name])
                if not all(torch.isfinite(p).all() for g in _stepped(optimizer).param_groups for p in g["params"]):
                    raise ValueError(f"the next step of {name} is not finite")
        if trainer.average:
            trainer.average.load_state_dict(values["average"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(str(error)) from error
    trainer.progress = progress
    _extend(trainer, values["epochs"])
    trainer.sums = values["sums"].to(trainer.device)
    trainer.window_sums = values["window_sums"].to(trainer.device)
    if best:
        renamed = aliases.weights(best, trainer.recipe.state_dict())
        trainer.best_weights = {name: value.to(trainer.device) for name, value in renamed.items()}
    else:
        progress.best = math.inf  # the best weights are lost: the next validation is the best
    torch.set_rng_state(values["rng"])
    if values["rng_cuda"] is not None and trainer.device.type == "cuda":
        torch.cuda.set_rng_state(values["rng_cuda"], trainer.device)
    if values["rng_mps"] is not None and trainer.device.type == "mps":
        torch.mps.set_rng_state(values["rng_mps"])


def _checked(trainer: "Trainer", values: Mapping[str, Any]) -> Progress:
    """The progress in a state. Raises ValueError if any part of the state cannot belong to this training."""
    progress = from_values(Progress, values.get("progress"))
    sums = torch.zeros(len(progress.names), dtype=trainer.sums.dtype)
    expected = of(trainer) | {"progress": asdict(progress), "sums": sums, "window_sums": sums, "optimizers": []}
    stateless = []  # for each phase, whether its optimizers lack the state that they would have after a step
    for phase, states in zip(trainer.phases, values.get("optimizers", ()), strict=True):
        expected["optimizers"].append({name: _stepped(o).state_dict() for name, o in phase.optimizers.items()})
        keeps_state = any(now["state"] for now in expected["optimizers"][-1].values())
        stateless.append(keeps_state and not any(states[name]["state"] for name in phase.optimizers))
        for name, now in expected["optimizers"][-1].items():  # a parameter without a gradient has no state
            now["state"] = {key: now["state"][key] for key in now["state"].keys() & states[name]["state"].keys()}
            groups = [[{**group, "lr": None} for group in each["param_groups"]] for each in (now, states[name])]
            if groups[0] != groups[1]:  # the learning rate does not count: it is set before every step
                raise ValueError(f"the settings of {name} are not those of this recipe")
    for name in ("rng_cuda", "rng_mps"):
        there = values.get(name)
        if there is None or (expected[name] is None and isinstance(there, Tensor)):  # on another device
            expected[name] = there
    if difference := mismatch(values, expected):
        raise ValueError(difference)
    if any(type(n) is not int or n > phase.epochs for n, phase in zip(values["epochs"], trainer.phases, strict=True)):
        raise ValueError(f"its epochs are {values['epochs']}")
    progress.check(values["epochs"], trainer.batches, trainer.settings)
    done = progress.epoch * trainer.batches + progress.batch if progress.phase < len(trainer.phases) else 0
    begun = stateless[progress.phase] if done > progress.skipped else False
    if begun or (stateless and all(stateless) and progress.step > progress.skipped):
        raise ValueError("its optimizers have no state, though they have taken steps")
    if trainer.average and int(values["average"]["n_averaged"]) != progress.step:
        raise ValueError(f"an average of {int(values['average']['n_averaged'])} steps")
    torch.Generator().set_state(values["rng"])  # raises if it is not a random state
    return progress


def _stepped(optimizer: Optimizer) -> Optimizer:
    """A copy of an optimizer and its parameters after a step with zero gradients. It shows which state the optimizer has."""
    copy = deepcopy(optimizer)
    for group in copy.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    copy.step()
    return copy


def _extend(trainer: "Trainer", before: list[int]) -> None:
    """Reopens the last phase of a finished training that has more epochs now. Raises UserError if an earlier phase has."""
    at = trainer.progress
    current = min(at.phase, len(trainer.phases) - 1)
    now = [phase.epochs for phase in trainer.phases]
    if now[:current] != before[:current]:
        over = next(k for k in range(current) if now[k] != before[k])
        raise UserError(f"--epochs: the phase '{trainer.phases[over].name}' is over and cannot be extended.", code=2)
    if at.phase == len(trainer.phases) and now[-1] > before[-1]:
        at.phase = current


def mismatch(there: object, here: object, name: str = "") -> str | None:
    """The first difference in structure between a state that was read (`there`) and the expected one (`here`), or None.

    Keys, types, shapes and lengths must agree, and a tensor must be finite wherever the expected one is. Plain values may
    differ.
    """
    if isinstance(here, Mapping):
        if not isinstance(there, Mapping):
            return f"{name} is {there!r:.60}"
        for key in dict.fromkeys([*here, *there]):
            if key not in here or key not in there:
                return f"{name}{key!r:.60} is {'missing' if key in here else 'too many'}"
        return next((bad for key in here if (bad := mismatch(there[key], here[key], f"{name}{key} "))), None)
    if isinstance(here, (list, tuple)):
        if not isinstance(there, (list, tuple)) or len(there) != len(here):
            return f"{name}is {there!r:.60}"
        return next(
            (bad for k, pair in enumerate(zip(there, here, strict=True)) if (bad := mismatch(*pair, f"{name}{k} "))),
            None,
        )
    if isinstance(here, Tensor):
        if not isinstance(there, Tensor) or (there.shape, there.dtype) != (here.shape, here.dtype):
            what = f"{tuple(there.shape)} {there.dtype}" if isinstance(there, Tensor) else f"{there!r:.60}"
            return f"{name}is {what}, not {tuple(here.shape)} {here.dtype}"
        return (
            None if (torch.isfinite(there) | ~torch.isfinite(here).to(there.device)).all() else f"{name}is not finite"
        )
    number = (int, float)
    alike = isinstance(there, number) and isinstance(here, number) and (type(there) is bool) == (type(here) is bool)
    return None if alike or type(there) is type(here) else f"{name}is {there!r:.60}"
