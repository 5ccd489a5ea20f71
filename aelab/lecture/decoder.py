"""A decoder as a short program with its weights, which the page of the lecture runs in JavaScript (`decoder.js`).

`torch.export` traces `recipe.decode` into a list of elementary operations, so no recipe is named here, and any recipe whose
operations are among those below can be moved by hand in the page. Shapes leave out the batch: the page decodes one code.
"""

import base64
import math
import operator
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node

from aelab.errors import UserError
from aelab.recipe import Decodes, Recipe

SAME_VALUES = (
    "alias",
    "clone",
    "contiguous",
    "dropout",
    "flatten",
    "reshape",
    "unflatten",
    "view",
)  # only the shape is new
OF_EACH_VALUE = ("relu", "sigmoid", "silu", "tanh")

Step = dict[str, Any]


class _Decoder(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, z: Tensor) -> Tensor:
        assert isinstance(self.recipe, Decodes)
        return self.recipe.decode(z)


def program(recipe: Recipe, code: Tensor) -> dict[str, Any]:
    """`recipe.decode` as a program for `decoder.js`; `code` (1, D) is any code that the recipe decodes.

    Its "steps" are operations on named values: the first value is called "code", and the last step gives the image. Its
    "weights" are float32 values in base64, by name. Raises UserError for an operation that the page cannot run.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's remarks on how it traces
        traced = torch.export.export(_Decoder(recipe).eval(), (code,))
    placed = {spec.arg.name: spec.target for spec in traced.graph_signature.input_specs}
    known = {**traced.state_dict, **traced.constants}
    values = {name: known[target] for name, target in placed.items() if target}
    names = {name: "code" for name, target in placed.items() if target is None}
    weights: dict[str, str] = {}
    steps: list[Step] = []
    for node in traced.graph.nodes:
        if node.op != "call_function":
            continue
        constants = {each.name: values[each.name] for each in node.all_input_nodes if each.name in values}
        inputs = [names.get(each.name, each.name) for each in node.all_input_nodes if each.name not in constants]
        if not inputs:
            raise _cannot(node)
        if isinstance(node.meta["val"], (tuple, list)):  # a split: its parts follow, which are parts of its input
            names[node.name] = inputs[0]
            continue
        step, tensors = _step(node, constants)
        for name, tensor in tensors.items():
            step[name] = f"{node.name}.{name}"
            weights[step[name]] = _base64(tensor)
        steps.append({**step, "from": inputs, "to": node.name, "shape": list(node.meta["val"].shape[1:])})
    return {"code": code.shape[1], "image": steps[-1]["shape"], "steps": steps, "weights": weights}


def _base64(values: Tensor) -> str:
    """Values as float32, in little-endian bytes."""
    return base64.b64encode(values.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()).decode()


def _cannot(node: Node) -> UserError:
    return UserError(f"the page cannot run this decoder: it has the operation {node.target}.")


def _step(node: Node, constants: dict[str, Tensor]) -> tuple[Step, dict[str, Tensor]]:
    """The operation of a node, and its weights by their role."""
    if node.target is operator.getitem:
        return _part(node), {}
    op = str(node.target).split(".")[1]
    arguments: list[Any] = [constants.get(each.name, each) if isinstance(each, Node) else each for each in node.args]
    if op in SAME_VALUES:
        return {"op": "reshape"}, {}
    if op in OF_EACH_VALUE:
        return {"op": op}, {}
    if op == "leaky_relu":
        return {"op": op, "slope": arguments[1] if len(arguments) > 1 else 0.01}, {}
    if op == "linear":
        return {"op": op}, _named(arguments[1:], "weight", "bias")
    if op in ("conv2d", "conv_transpose2d") and str(node.target) != "aten.conv2d.padding":
        return _convolution(node, op, arguments)
    if op == "batch_norm" and not arguments[5]:  # in training it would depend on the batch
        return {"op": "scale"}, _normalisation(arguments)
    if op == "pixel_shuffle":
        return {"op": op, "factor": arguments[1]}, {}
    if op == "cat" and not constants and _dimension(node, arguments, 1) == 0:
        return {"op": op}, {}
    if op == "slice":
        start, step = (arguments[k] if len(arguments) > k else default for k, default in ((2, 0), (4, 1)))
        if start >= 0 and step == 1:
            return _slice(_dimension(node, arguments, 1), start), {}
    if op in ("add", "sub", "mul") and not node.kwargs:
        return _arithmetic(node, op, arguments[0], arguments[1])
    if op == "rsub" and not node.kwargs and len(arguments) == 2:  # the other way round
        return _arithmetic(node, "sub", arguments[1], arguments[0])
    raise _cannot(node)


def _dimension(node: Node, arguments: Any, at: int) -> int:
    """The dimension that a node is told, without the batch: -1 is that of the batch itself."""
    value = node.meta["val"]
    dimensions = (value[0] if isinstance(value, (tuple, list)) else value).ndim
    dim: int = arguments[at] if len(arguments) > at else 0
    return dim % int(dimensions) - 1


def _slice(dim: int, start: int) -> Step:
    return {"op": "reshape"} if dim < 0 else {"op": "slice", "dim": dim, "start": start}


def _named(tensors: Sequence[Any], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in zip(names, tensors, strict=False) if isinstance(tensor, Tensor)}


def _part(node: Node) -> Step:
    """One of the parts into which a value was split: it begins where those before it end."""
    split, number = node.args
    assert isinstance(split, Node)
    assert isinstance(number, int)
    if str(split.target).split(".")[1] not in ("split", "split_with_sizes", "chunk"):
        raise _cannot(split)
    dim = _dimension(split, split.args, 2)
    return _slice(dim, sum(part.shape[dim + 1] for part in split.meta["val"][:number]))


def _convolution(node: Node, op: str, arguments: list[Any]) -> tuple[Step, dict[str, Tensor]]:
    """Stride, padding and kernel, as (height, width). Neither groups nor a dilation are known."""
    rest = dict(enumerate(arguments))
    groups = rest.get(6, 1)
    dilation = rest.get(5 if op == "conv2d" else 7, [1, 1])
    if groups != 1 or set(dilation) != {1}:
        raise _cannot(node)
    weights = _named(arguments[1:3], "weight", "bias")
    kernel = list(weights["weight"].shape[2:])
    return {"op": op, "kernel": kernel, "stride": rest.get(3, [1, 1]), "padding": rest.get(4, [0, 0])}, weights


def _normalisation(arguments: list[Any]) -> dict[str, Tensor]:
    """Batch normalisation with its running averages is one factor and one term a channel."""
    _, gamma, beta, mean, variance, _, _, eps, *_ = arguments
    factor = torch.rsqrt(variance + eps) * (1 if gamma is None else gamma)
    return {"factor": factor, "term": (0 if beta is None else beta) - mean * factor}


def _arithmetic(node: Node, op: str, left: Any, right: Any) -> tuple[Step, dict[str, Tensor]]:
    """A value and a constant: a number, or one for each of its values. It becomes a factor and a term for each value."""
    value, constant = (left, right) if isinstance(left, Node) else (right, left)
    if isinstance(constant, Node):
        raise _cannot(node)
    shape = value.meta["val"].shape[1:]
    by = torch.as_tensor(constant, dtype=torch.float32)
    if shape != node.meta["val"].shape[1:] or by.numel() not in (1, math.prod(shape)):
        raise _cannot(node)
    by = by.flatten().expand(math.prod(shape))
    one, nothing = torch.ones_like(by), torch.zeros_like(by)
    if op == "mul":
        factor, term = by, nothing
    elif op == "add":
        factor, term = one, by
    else:
        factor, term = (one, -by) if isinstance(left, Node) else (-one, by)
    return {"op": "scale"}, {"factor": factor, "term": term}
