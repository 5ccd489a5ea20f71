"""What a training runs on."""

import torch

from aelab.errors import UserError


def pick_device(name: str) -> torch.device:
    """auto is CUDA where there is one, then Apple's MPS, then the CPU. Raises UserError for a device that is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, there in available.items() if there)
    if not available.get(name.split(":")[0], False):
        raise UserError(
            f"--device {name}: this machine or this build of torch has no {name}.", "Use --device cpu or auto.", code=2
        )
    return torch.device(name)


def device_name(device: torch.device) -> str:
    """What the device is called."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads > 1)}"
