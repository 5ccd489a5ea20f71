"""The processes that torchrun starts for one training, and what they exchange.

Every process has the whole model and the same random state, and computes its rows of each batch. Tensors of a GPU travel by
NCCL; what the host has, by gloo.
"""

import hashlib
import os
import platform
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from aelab.errors import UserError

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = timedelta(minutes=30)  # of the others while the first validates, draws or saves


class PeerLostError(UserError):
    """Another process of the group has ended."""

    def __init__(self) -> None:
        super().__init__("another process of this training has ended.")


@dataclass(frozen=True)
class Torchrun:
    """What torchrun tells a process that it started. `id` stays the same when torchrun starts its processes again."""

    rank: int
    size: int
    id: str
    restarts: int


def torchrun() -> Torchrun | None:
    """What torchrun says of this process, or None if it was not started by it."""
    given = os.environ
    if "TORCHELASTIC_RUN_ID" not in given or "RANK" not in given:
        return None
    name = given["TORCHELASTIC_RUN_ID"]
    if name == "none":  # nobody chose one; the parent process is the one that starts its processes again
        name = f"{platform.node()} {os.getppid()}"
    restarts = int(given.get("TORCHELASTIC_RESTART_COUNT", 0))
    return Torchrun(
        int(given["RANK"]), int(given["WORLD_SIZE"]), hashlib.sha256(name.encode()).hexdigest()[:16], restarts
    )


def _together(method: Callable[P, R]) -> Callable[P, R]:
    """A method that raises PeerLostError where torch says that another process does not answer."""

    @wraps(method)
    def inner(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return method(*arguments, **named)
        except RuntimeError as error:  # of gloo, of NCCL, or of torch's store
            raise PeerLostError from error

    return inner


class Group:
    """The processes of one training. Each calls the same methods in the same order; the process of rank 0 leads."""

    def __init__(self, launched: Torchrun) -> None:
        """Joins the group. Each process of a machine takes a GPU of its own, if the machine has as many."""
        self.rank, self.size = launched.rank, launched.size
        self.enough_gpus = torch.cuda.device_count() >= int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if self.enough_gpus:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        self._join(launched)

    @_together
    def _join(self, launched: Torchrun) -> None:
        """The store of torchrun outlives a restart, and with it the addresses of processes that have ended."""
        store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
        own = PrefixStore(f"start {launched.restarts}", store)
        backend = "cpu:gloo,cuda:nccl" if self.enough_gpus else "gloo"
        dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=PATIENCE)

    def leave(self) -> None:
        """Ends the group, after the last exchange."""
        with suppress(RuntimeError):  # another process has ended first
            dist.destroy_process_group()

    def rows(self, batch: int) -> slice:
        """Which of the images of a batch are those of this process. The size of the group divides their number."""
        own = batch // self.size
        return slice(self.rank * own, (self.rank + 1) * own)

    @_together
    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes, the same bits in all of them."""
        values = values.contiguous()
        dist.all_reduce(values)
        return values / self.size

    @_together
    def gather(self, values: Tensor) -> Tensor:
        """The values of all processes, (size, ...)."""
        values = values.contiguous()
        gathered = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(gathered, values)
        return torch.stack(gathered)

    @_together
    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        count = torch.tensor(int(flag))
        dist.all_reduce(count)
        return bool(count)

    @_together
    def from_first(self, value: Any = None) -> Any:
        """The value of the process of rank 0. The others give none."""
        box = [value]
        dist.broadcast_object_list(box, device=torch.device("cpu"))
        return box[0]

    @_together
    def of_all(self, value: Any) -> list[Any]:
        """The values of all processes, by rank."""
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values
