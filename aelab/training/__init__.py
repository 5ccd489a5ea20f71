"""The training loop as a generator of events; its settings, its state and its checkpoints."""

from aelab.training.checkpoint import Checkpoint, finish, newest, present
from aelab.training.device import device_name, pick_device
from aelab.training.differences import differences
from aelab.training.events import EpochDone, Event, PhaseStopped, StepDone, StepSkipped
from aelab.training.group import Group, PeerLostError, Torchrun, torchrun
from aelab.training.saving import Checkpoints, restore
from aelab.training.settings import LARGEST_SEED, Settings, from_values, parse, rate_factor
from aelab.training.trainer import DivergedError, Trainer
from aelab.training.weights import load as load_weights

__all__ = [
    "LARGEST_SEED",
    "Checkpoint",
    "Checkpoints",
    "DivergedError",
    "EpochDone",
    "Event",
    "Group",
    "PeerLostError",
    "PhaseStopped",
    "Settings",
    "StepDone",
    "StepSkipped",
    "Torchrun",
    "Trainer",
    "device_name",
    "differences",
    "finish",
    "from_values",
    "load_weights",
    "newest",
    "parse",
    "pick_device",
    "present",
    "rate_factor",
    "restore",
    "torchrun",
]
