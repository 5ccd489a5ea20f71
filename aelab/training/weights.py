"""The weights of a recipe: averaged, loaded, and checked for values that are not finite."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aelab import aliases
from aelab.recipe import Recipe


def average(recipe: Recipe, decay: float) -> AveragedModel:
    """An exponential moving average of a recipe's weights and buffers.

    A buffer of integers or truth values is copied instead: a count, or a state such as that of a Markov chain.
    After n steps the decay is at most (1 + n) / (10 + n), so that even a short training forgets the initial weights.
    """

    def step(averaged: Any, current: Any, n: Tensor | int) -> None:
        if not averaged[0].is_floating_point():
            torch._foreach_copy_(averaged, current)
            return
        bounded = min(decay, (1 + int(n)) / (10 + int(n)))
        get_ema_multi_avg_fn(bounded)(averaged, current, n)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    return AveragedModel(recipe, multi_avg_fn=step, use_buffers=True)


def load(recipe: Recipe, weights: Mapping[str, Tensor]) -> None:
    """Loads weights into a recipe. Raises ValueError, naming the weight, if one does not fit or is not finite."""
    wanted = recipe.state_dict()
    weights = aliases.weights(weights, wanted)
    for name in dict.fromkeys([*wanted, *weights]):
        if name not in weights or name not in wanted:
            raise ValueError(f"{name} is {'missing' if name in wanted else 'too many'}")
        if (there := weights[name].shape) != (here := wanted[name].shape):
            raise ValueError(f"{name} is {' x '.join(map(str, there))} there and {' x '.join(map(str, here))} here")
        if weights[name].dtype != wanted[name].dtype:
            raise ValueError(f"{name} is {weights[name].dtype} there and {wanted[name].dtype} here")
    recipe.load_state_dict(weights)
    if bad := not_finite(recipe):
        raise ValueError(f"{bad} is not finite")


def not_finite(recipe: Recipe) -> str | None:
    """The name of the first parameter that is not finite, or buffer that is NaN; None if there is none."""
    bad = (name for name, weight in recipe.named_parameters() if not torch.isfinite(weight).all())
    return next(bad, None) or next((name for name, b in recipe.named_buffers() if torch.isnan(b).any()), None)
