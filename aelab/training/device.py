"""The device that a training runs on."""

import torch

from aelab.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is CUDA if available, else Apple's MPS, else the CPU. Raises UserError if there is none."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name.split(":")[0], False):
        raise UserError(
            f"--device {name}: this machine or this build of torch has no {name}.", "Use --device cpu or auto.", code=2
        )
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """The name of a GPU; of a CPU the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads > 1)}"
