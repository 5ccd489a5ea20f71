"""The training loop as a generator of events; its settings, its state and its checkpoints."""

from aelab.training.checkpoint import Checkpoint, finish, newest, present
from aelab.training.device import device_name, pick_device
from aelab.training.events import EpochDone, Event, PhaseStopped, StepDone, StepSkipped
from aelab.training.saving import Checkpoints, restore
from aelab.training.settings import LARGEST_SEED, Settings, from_values, parse
from aelab.training.trainer import DivergedError, Trainer
from aelab.training.weights import load as load_weights

__all__ = [
    "LARGEST_SEED",
    "Checkpoint",
    "Checkpoints",
    "DivergedError",
    "EpochDone",
    "Event",
    "PhaseStopped",
    "Settings",
    "StepDone",
    "StepSkipped",
    "Trainer",
    "device_name",
    "finish",
    "from_values",
    "load_weights",
    "newest",
    "parse",
    "pick_device",
    "present",
    "restore",
]
