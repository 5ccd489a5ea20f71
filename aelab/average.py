"""The average of a recipe's weights."""

from typing import Any

from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from aelab.recipe import Recipe


def average(recipe: Recipe, decay: float) -> AveragedModel:
    """An exponential moving average of a recipe's weights and buffers.

    After n steps its decay is at most (1 + n) / (10 + n), so that it forgets the first weights in a short training too.
    """

    def step(averaged: Any, current: Any, n: Tensor | int) -> None:
        bounded = min(decay, (1 + int(n)) / (10 + int(n)))
        get_ema_multi_avg_fn(bounded)(averaged, current, n)  # type: ignore[no-untyped-call]  # torch leaves it untyped

    return AveragedModel(recipe, multi_avg_fn=step, use_buffers=True)
