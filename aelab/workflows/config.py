"""What a run is made of, and what it says of itself: configuration, environment, model card."""

import os
import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

import torch

from aelab.console import number
from aelab.evaluation.definitions import definition
from aelab.evaluation.diagnostics import Diagnosis
from aelab.recipe_files import RecipeFile
from aelab.training.device import device_name
from aelab.training.settings import MOST, Settings, made
from aelab.training.trainer import Training

PACKAGES = ("torch", "torchvision", "mlflow", "numpy", "scikit-learn", "safetensors", "mlxtend")


@dataclass(frozen=True)
class Config:
    """All that determines a run's numbers, beside the code: what config.json holds."""

    recipe: str  # a name, or a path as it was typed
    settings: Settings
    options: Mapping[str, Any] = field(default_factory=dict)  # of the recipe
    data: str = "auto"  # as it was typed
    image_size: int | None = None
    split_seed: int = 0
    start: str | None = None  # the id of the run whose weights it begins with
    skip_bad: bool = False  # leave pictures out that cannot be read

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Config":
        """What config.json holds. Raises ValueError, KeyError, TypeError or AttributeError for what is none.

        The options are plain here; `recipe_files.build` checks them against their types and bounds.
        """
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in value["options"].items()}
        for name, option in options.items():
            if not all(
                isinstance(part, (str, int, float)) for part in (option if isinstance(option, tuple) else (option,))
            ):
                raise ValueError(f"the option {name} is no plain value")
        keys = ("recipe", "data", "image_size", "split_seed", "start", "skip_bad")
        plain = {k: value[k] for k in keys if k in value}
        config = made(cls, {**plain, "settings": made(Settings, value["settings"]), "options": options})
        if not 0 <= config.split_seed <= MOST["seed"] or (
            config.image_size is not None and not 1 <= config.image_size <= 100_000
        ):
            raise ValueError("split_seed or image_size is out of range")
        return config


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that have a value."""
    return {key: value for key, value in settings.items() if value is not None}


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and machine: what environment.json holds."""
    return {
        "python": platform.python_version(), "platform": platform.platform(), "processor": platform.machine(),
        "cores": os.cpu_count(), "device": device_name(device), "cuda": torch.version.cuda,
        "packages": {name: metadata.version(name) for name in PACKAGES},
    }  # fmt: skip


def model_card(
    config: Config, page: RecipeFile, training: Training, validation: Mapping[str, float], health: Diagnosis
) -> str:
    """A README for the run: what was trained, on what, how well, and how to use it."""
    data, run = training.data, training.run
    rows = [
        f"| {name} | {number(value)} | {d.unit if (d := definition(name)) else ''} |"
        for name, value in validation.items()
    ]
    typed = {**config.options, "data": config.data, "image_size": config.image_size, "split_seed": config.split_seed,
             "start": config.start, "skip_bad": config.skip_bad or None}  # fmt: skip
    words = [_typed(k, v) for k, v in given({**typed, **asdict(config.settings)}).items()]
    return "\n".join((
        f"# {run.name}", "", page.summary, "",
        f"Trained on {len(data.train):,} images of {data.name} ({'x'.join(map(str, data.image))}), "
        f"validated on {len(data.val):,}, with {len(data.test):,} more set apart for the test. {data.note}".rstrip(), "",
        "| validation | value | unit |", "|---|---|---|", *rows, "",
        f"Health: {health.text}.", *(f"Note: {note}." for note in health.notes), "",
        "Again:", "", f"    aelab train {shlex.quote(config.recipe)} {' '.join(words)}",
        "", "Use:", "", f"    aelab eval {shlex.quote(run.name)}", "",
        f"The weights are in checkpoints/, the recipe's source in recipe/{page.path.name}.", "",
    ))  # fmt: skip


def _typed(name: str, value: object) -> str:
    """An option as one types it."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {shlex.quote(','.join(map(str, value)) if isinstance(value, tuple) else str(value))}"
