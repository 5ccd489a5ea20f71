"""A trial before several processes train together: is a step that they share the step of a single process?"""

import copy
from dataclasses import replace

import torch
from torch import Tensor

from aelab.data import Dataset
from aelab.evaluation import eval_mode
from aelab.recipe import Recipe
from aelab.training.group import Group
from aelab.training.settings import Settings
from aelab.training.trainer import DivergedError, Trainer

TOLERANCE = 1e-3  # relative: rounding makes 1e-5 or less, a draw that is not shared 1e-2 and more


def differences(recipe: Recipe, data: Dataset, settings: Settings, group: Group) -> str:
    """How a step of the group differs from a step of one process, or an empty string if it does not.

    Each phase takes both steps with its first batch, on copies, with learning rates of 0. Metrics, gradients and weights are
    compared.
    """
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    settings = replace(settings, precision="float32", skip_nonfinite=0)
    try:
        with eval_mode(recipe), torch.enable_grad():
            for k in range(len(Trainer(copy.deepcopy(recipe), data, settings).phases)):
                one = _after_a_step(Trainer(copy.deepcopy(recipe), data, settings), k)
                several = _after_a_step(Trainer(copy.deepcopy(recipe), data, settings, group), k)
                wrong = _unequal(one, several) if one and several else ""
                found: list[str] = [each for each in group.of_all(wrong) if each]
                if found:
                    return found[0]
    finally:
        torch.set_float32_matmul_precision(precision)
    return ""


def _after_a_step(trainer: Trainer, k: int) -> dict[str, Tensor]:
    """Metrics, gradients, weights and buffers after the first step of a phase; nothing if it is not finite or has no epoch."""
    phase = trainer.phases[k]
    if not phase.epochs:
        return {}
    trainer.progress.phase = k
    trainer.rates = [[[0.0 for _ in rates] for rates in each] for each in trainer.rates]
    trainer.recipe.train()
    torch.manual_seed(trainer.settings.seed)
    try:
        trainer.take(phase, [order[0] for order in trainer.orders()])
    except DivergedError:
        return {}
    found = {f"metric {name}": value for name, value in zip(trainer.progress.names, trainer.sums, strict=True)}
    for name, p in trainer.recipe.named_parameters():
        found |= {f"gradient of {name}": p.grad} if p.grad is not None else {}
    return found | {f"weight {name}": value for name, value in trainer.recipe.state_dict().items()}


def _unequal(one: dict[str, Tensor], several: dict[str, Tensor]) -> str:
    """The name of the first tensor that differs by more than rounding; empty if there is none."""
    if one.keys() != several.keys():
        return next(iter(one.keys() ^ several.keys()))
    largest = max((float(v.norm()) for name, v in one.items() if name.startswith("gradient")), default=0.0)
    for name, value in one.items():
        floor = 1e-4 * largest if name.startswith("gradient") else 1e-5
        if float((several[name].double() - value.double()).norm()) > TOLERANCE * float(value.double().norm()) + floor:
            return name
    return ""
