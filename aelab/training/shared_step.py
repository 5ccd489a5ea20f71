"""A training step that several processes take together, each with its rows of the batch, as if it was a single one.

The recipe does not know. While its step runs, `SharedStep` sees every function of torch that it calls:

- A random draw with a row for each image is made for the whole batch, and the process keeps its rows. All processes have the
  same random state and draw the same.
- Batch normalisation takes mean and variance over the whole batch.
- After a backward pass the gradients are averaged over the processes, and so is then every loss that is a mean over images.

What is not seen (a loss that is no mean over images, a state that a recipe keeps, a generator of its own) makes another step
of it. `differences` finds that before a training begins.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from aelab.training.group import Group

SIZED = {torch.rand, torch.randn, torch.randint}  # their arguments say the shape
DRAWS = {  # they draw for each value of a tensor
    *(torch.rand_like, torch.randn_like, torch.randint_like, torch.bernoulli, torch.normal, torch.multinomial),
    *(torch.Tensor.bernoulli, torch.Tensor.multinomial, F.gumbel_softmax),
    *(F.dropout, F.alpha_dropout, F.feature_alpha_dropout, F.dropout1d, F.dropout2d, F.dropout3d),
}
FILLS = {  # they draw into a tensor
    *(torch.Tensor.bernoulli_, torch.Tensor.exponential_, torch.Tensor.normal_, torch.Tensor.random_),
    torch.Tensor.uniform_,
}


class SharedStep(TorchFunctionMode):
    """Within it, steps of `recipe` with `rows` images are steps of the group with `rows` times its size."""

    def __init__(self, group: Group, recipe: nn.Module, rows: int) -> None:
        super().__init__()
        self.group, self.parameters, self.rows = group, list(recipe.parameters()), rows

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.backward:
            return self._backward(*args, **kwargs)
        if func is F.batch_norm:
            return self._batch_norm(*args, **kwargs)
        if func in SIZED:
            return self._sized(func, args, kwargs)
        if func in DRAWS:
            return self._drawn(func, args, kwargs)
        if func in FILLS:
            filled = args[0]
            return filled.copy_(self._drawn(func, args, kwargs))
        return func(*args, **kwargs)

    def _backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
        """The backward pass, then the mean of the gradients that it changed.

        A loss that is not finite in one process makes a gradient NaN in all, so that none goes on without the others.
        """
        before = [(p.grad, p.grad._version if p.grad is not None else 0) for p in self.parameters]
        loss.backward(*args, **kwargs)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        gradients = [
            p.grad
            for p, (old, version) in zip(self.parameters, before, strict=True)
            if p.grad is not None and (p.grad is not old or p.grad._version != version)
        ]
        with torch.no_grad():
            flat = torch.cat([loss.detach().reshape(1), *(g.reshape(-1) for g in gradients)])
            mean = self.group.mean(flat)
            mean[1:2] += 0 * mean[0]
            parts = torch.split(mean[1:], [g.numel() for g in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def _batch_norm(
        self,
        x: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not training:
            return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
        y, mean, var = _BatchNorm.apply(self.group, x, weight, bias, eps)
        if running_mean is not None and running_var is not None:
            values = self.group.size * x.numel() // x.shape[1]  # that are averaged
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((var * values / (values - 1)).to(running_var.dtype), momentum)
        return cast("Tensor", y)

    def _sized(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A draw of a shape that the arguments say."""
        shape = func(*args, **{**kwargs, "device": "meta", "generator": None}).shape
        dim = self._batch_dim(shape)
        if dim is None:
            return func(*args, **kwargs)
        whole = [n * self.group.size if d == dim else n for d, n in enumerate(shape)]
        bounds = [each for each in args if isinstance(each, int)] if func is torch.randint else []
        return self._own(func(*bounds, whole, **{k: v for k, v in kwargs.items() if k != "size"}), dim)

    def _drawn(self, func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """A draw for each value of the tensors among the arguments. How much is drawn does not depend on their values."""
        dims = [self._batch_dim(a.shape) if isinstance(a, Tensor) else None for a in (*args, *kwargs.values())]
        dim = next((d for d in dims if d is not None), None)
        if dim is None:
            return func(*args, **kwargs)
        whole = [self._whole(a, d) for a, d in zip((*args, *kwargs.values()), dims, strict=True)]
        return self._own(func(*whole[: len(args)], **dict(zip(kwargs, whole[len(args) :], strict=True))), dim)

    def _batch_dim(self, shape: Sequence[int]) -> int | None:
        """Which dimension counts images: the first if it is a multiple of their number, else one that is their number."""
        if shape and shape[0] and shape[0] % self.rows == 0:
            return 0
        return next((d for d, n in enumerate(shape) if n == self.rows), None)

    def _whole(self, value: Any, dim: int | None) -> Any:
        """A tensor for the whole batch: its rows in the place of each process's. With two rows an image, a batch comes twice."""
        if dim is None:
            return value
        return torch.cat([part for part in torch.split(value, self.rows, dim) for _ in range(self.group.size)], dim)

    def _own(self, whole: Tensor, dim: int) -> Tensor:
        """The rows of this process in a tensor for the whole batch."""
        batches = torch.split(whole, self.rows * self.group.size, dim)
        own = [each.narrow(dim, self.group.rank * self.rows, self.rows) for each in batches]
        return own[0] if len(own) == 1 else torch.cat(own, dim)


class _BatchNorm(torch.autograd.Function):
    """Batch normalisation of x (B, C, ...) over the rows of all processes (Ioffe & Szegedy 2015).

    Also returns the mean and the variance, (C,) each, without a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, group: Group, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        var, mean = torch.var_mean(_precise(x), _but_channels(x), correction=0)
        means, variances = group.gather(torch.stack([mean, var])).unbind(1)  # (size, C) each
        mean, var = means.mean(0), variances.mean(0) + means.var(0, correction=0)
        ctx.group = group
        ctx.save_for_backward(x, weight, mean, (var + eps).rsqrt())
        ctx.mark_non_differentiable(mean, var)
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps), mean, var

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        shape = (1, -1, *[1] * (x.ndim - 2))
        g = _precise(gradients[0])
        normal = (_precise(x) - mean.view(shape)) * scale.view(shape)
        dims = _but_channels(x)
        sums = torch.stack([g.sum(dims), (g * normal).sum(dims)])  # (2, C)
        by_bias, by_weight = ctx.group.mean(sums.clone()) / (x.numel() // x.shape[1])
        slope = scale if weight is None else scale * weight
        by_x = slope.view(shape) * (g - by_bias.view(shape) - normal * by_weight.view(shape))
        of_weight = (sums[1], sums[0]) if weight is not None else (None, None)
        return None, by_x.to(x.dtype), *of_weight, None


def _precise(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.bfloat16, torch.float16) else x


def _but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.ndim) if d != 1]
