"""The description of a run: the machine that it ran on, and its model card."""

import os
import platform
import shlex
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch

from aelab.data import Dataset
from aelab.evaluation import Diagnosis
from aelab.metrics import definition, number
from aelab.training import device_name
from aelab.workflows.planning import Plan, command

PACKAGES = ("torch", "torchvision", "mlflow", "numpy", "scikit-learn", "safetensors", "mlxtend")


def environment(device: torch.device) -> dict[str, Any]:
    """The versions and the machine: the content of environment.json."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "device": device_name(device),
        "cuda": torch.version.cuda,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }


def model_card(planned: Plan, name: str, data: Dataset, validation: Mapping[str, float], diagnosis: Diagnosis) -> str:
    """The model card in Markdown: what was trained, on which data, with which result, and how to use it."""
    config, recipe_file = planned.config, planned.recipe_file
    images = (
        f"Trained on {len(data.train):,} images of {data.name} ({'x'.join(map(str, data.image))}), "
        f"validated on {len(data.val):,}, with {len(data.test):,} more held out for the test. {data.note}"
    )
    lines = [
        f"# {name}",
        "",
        recipe_file.summary,
        "",
        images.rstrip(),
        "",
        "| validation | value | unit |",
        "|---|---|---|",
        *(f"| {key} | {number(value)} | {unit(key)} |" for key, value in validation.items()),
        "",
        f"Diagnostics: {diagnosis.text}.",
        *(f"Note: {note}." for note in diagnosis.notes),
        "",
        "Train it again:",
        "",
        f"    {command(config, recipe_file)}",
        "",
        "Use it:",
        "",
        f"    aelab eval {shlex.quote(name)}",
        "",
        f"The weights are in checkpoints/, the recipe's source in recipe/{recipe_file.path.name}.",
        "",
    ]
    return "\n".join(lines)


def unit(metric: str) -> str:
    """The unit of a metric; empty if it has none or is not known."""
    known = definition(metric)
    return known.unit if known else ""
