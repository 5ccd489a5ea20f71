"""The device that a training runs on."""

import torch

from aelab.errors import UserError


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` is CUDA if available, else Apple's MPS, else the CPU. Raises UserError if there is none."""
    there = _devices()
    best = next(each for each in ("cuda", "mps", "cpu") if each in there)
    if name != "auto" and name not in there:
        raise UserError(
            f"--device {name}: this machine, with this build of torch, has {', '.join(there.values())}.",
            f"Use --device {best} or auto.",
            code=2,
        )
    return torch.device(best if name == "auto" else name)


def _devices() -> dict[str, str]:
    """What --device may name here, each with its description: cpu, cuda (the first GPU), cuda:0, cuda:1, ..., mps."""
    there = {"cpu": "cpu"}
    if torch.cuda.is_available():
        gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        there["cuda"] = f"cuda ({gpus[0]})"
        there |= {f"cuda:{number}": f"cuda:{number} ({gpu})" for number, gpu in enumerate(gpus)}
    if torch.backends.mps.is_available():
        there["mps"] = "mps (Apple's GPU)"
    return there


def device_name(device: torch.device) -> str:
    """The name of a GPU; of a CPU the number of threads."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'s' * (threads > 1)}"
