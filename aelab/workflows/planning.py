"""The plan of a training: its configuration, with all defaults filled in, its recipe file and its data."""

import hashlib
import json
import logging
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from aelab import recipe_files
from aelab.data import Dataset, open_data, require
from aelab.errors import UserError
from aelab.recipe import Conditional, Recipe
from aelab.recipe_files import RecipeFile
from aelab.training import LARGEST_SEED, Settings, device_name, from_values, pick_device
from aelab.workflows.trying import phases_of, try_recipe

log = logging.getLogger(__name__)

RECIPE_DEFAULTS = ("epochs", "batch_size", "ema", "schedule", "warmup")  # settings whose default is the recipe's
LARGEST_SIDE = 100_000  # pixels


@dataclass(frozen=True)
class Config:
    """All that determines a run's numbers, beside the code: the content of config.json."""

    recipe: str  # a name, or the path of a file
    settings: Settings
    options: Mapping[str, Any] = field(default_factory=dict)  # of the recipe; only those that were given
    data: str = "auto"  # a name, or the path of a folder
    image_size: int | None = None
    split_seed: int = 0
    start: str | None = None  # the id of the run whose weights it starts from
    skip_bad: bool = False  # leave out pictures that cannot be read

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Config":
        """The configuration in a config.json. Raises ValueError, KeyError, TypeError or AttributeError if it is invalid.

        Options are only checked to be plain values; `recipe_files.build` checks their types and bounds.
        """
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in value["options"].items()}
        for name, option in options.items():
            parts = option if isinstance(option, tuple) else (option,)
            if not all(isinstance(part, (str, int, float)) for part in parts):
                raise ValueError(f"the option {name} is no plain value")
        keys = ("recipe", "data", "image_size", "split_seed", "start", "skip_bad")
        plain = {k: value[k] for k in keys if k in value}
        return from_values(
            cls, {**plain, "settings": from_values(Settings, value["settings"]), "options": options}
        ).checked()

    def checked(self) -> "Config":
        """This configuration. Raises ValueError if split_seed or image_size is out of range."""
        if not 0 <= self.split_seed <= LARGEST_SEED:
            raise ValueError(f"split_seed {self.split_seed!s:.60} is not between 0 and {LARGEST_SEED}")
        if self.image_size is not None and not 1 <= self.image_size <= LARGEST_SIDE:
            raise ValueError(f"image_size {self.image_size!s:.60} is not between 1 and {LARGEST_SIDE}")
        return self


@dataclass(frozen=True)
class Plan:
    """A training that can begin: its configuration, its recipe file, and its data."""

    config: Config
    recipe_file: RecipeFile
    data: Dataset

    @cached_property
    def options(self) -> dict[str, Any]:
        """Every option of the recipe, with its default if it was not given."""
        return all_options(self.recipe_file, self.config.options)

    @cached_property
    def identity(self) -> str:
        """A SHA-256 of all that determines a run's numbers except the machine: recipe source, options, settings, data, start.

        On one machine, two runs with the same identity have the same numbers.
        """
        settings = {key: value for key, value in asdict(self.config.settings).items() if key != "device"}
        for newer in ("skip_nonfinite", "augment"):  # older runs have no such settings
            if not settings[newer]:
                del settings[newer]
        facts = [self.recipe_file.sha256, self.options, settings, self.data.fingerprint, self.config.start]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def facts(self, device: torch.device) -> dict[str, Any]:
        """The facts in a checkpoint's manifest that a resume compares."""
        data = self.data
        return {
            "recipe": self.recipe_file.name,
            "recipe_sha256": self.recipe_file.sha256,
            "options": self.options,
            "image": list(data.image),
            "classes": len(data.classes),
            "data": data.name,
            "data_fingerprint": data.fingerprint,
            "versions": {"aelab": metadata.version("aelab"), "torch": torch.__version__},
            "device": device_name(device),
        }

    def build(self) -> Recipe:
        """The recipe on its device, initialised by the seed. Raises UserError if the training cannot begin."""
        settings, data = self.config.settings, self.data
        device = pick_device(settings.device)
        if settings.precision == "tf32" and device.type != "cuda":
            raise UserError(f"--precision tf32 is for CUDA; this is {device.type}.", code=2)
        if settings.precision == "tf32":
            torch.set_float32_matmul_precision("high")
        batch = min(settings.batch_size, len(data.train))
        if device.type == "cpu":  # on a GPU torch raises; here the kernel would kill the process
            shape = " x ".join(map(str, data.image))
            require(
                3 * 4 * batch * math.prod(data.image),  # the images, their copies, the gradient
                f"steps of {batch:,} images of {shape}",
                "Use a smaller --batch-size, or smaller images: --image-size 64",
            )
        torch.backends.cudnn.deterministic = True
        torch.manual_seed(settings.seed)
        recipe = recipe_files.build(self.recipe_file, data.image, self.config.options, len(data.classes)).to(device)
        self.check(recipe)
        phases = phases_of(recipe, self.recipe_file.path, settings.epochs)
        for labels in {phase.labels for phase in phases if phase.labels}:
            data.train.labelled(labels, settings.seed)  # raises before there is a run
        try_recipe(recipe, self.recipe_file.path, data, settings)
        return recipe

    def check(self, recipe: Recipe) -> None:
        """Raises UserError if the recipe cannot have these settings or these data."""
        if self.config.settings.patience is not None and recipe.monitor is None:
            raise UserError("--patience: this recipe keeps its last weights, so there is no metric to stop by.", code=2)
        without = int((self.data.train.labels < 0).sum())
        if isinstance(recipe, Conditional) and recipe.conditional and without:
            raise UserError(f"--conditional needs a label for every image; {without:,} have none.", code=2)


def plan(
    recipe: str,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    data: str = "auto",
    data_dir: Path | str | None = None,
    image_size: int | None = None,
    skip_bad: bool = False,
    split_seed: int = 0,
    device: str = "auto",
    precision: str = "float32",
    max_steps: int | None = None,
    patience: int | None = None,
    ema: float | None = None,
    schedule: str | None = None,
    warmup: int | None = None,
    skip_nonfinite: int = 0,
    augment: str | None = None,
    start: str | None = None,
    opened: Callable[[Config], Dataset] | None = None,
    **options: Any,
) -> Plan:
    """The plan for these options of `train`. All defaults are decided here.

    A recipe has defaults of its own. If `epochs` is not given, a small data set gets more of them (`Settings.long_enough`).
    `opened` opens the data, by default `open_configured`.

    Raises UserError for an option that is unknown, of another type or out of range.
    """
    recipe_file = recipe_files.trust(recipe)
    given = {"epochs": epochs, "batch_size": batch_size, "ema": ema, "schedule": schedule, "warmup": warmup}
    defaults = recipe_files.signature(recipe_file).settings
    settings = {key: defaults[key] if given[key] is None else given[key] for key in RECIPE_DEFAULTS}
    settings |= {
        "seed": seed,
        "device": device,
        "precision": precision,
        "max_steps": max_steps,
        "patience": patience,
        "skip_nonfinite": skip_nonfinite,
        "augment": augment,
    }
    plain = {name: _plain(value) for name, value in options.items()}
    built_in = recipe_files.available().get(recipe_file.name)
    name = recipe_file.name if built_in and built_in.path == recipe_file.path else str(recipe_file.path)
    try:
        config = from_values(
            Config,
            {
                "recipe": name,
                "settings": from_values(Settings, settings),
                "options": plain,
                "data": data,
                "image_size": image_size,
                "split_seed": split_seed,
                "start": start,
                "skip_bad": skip_bad,
            },
        ).checked()
    except ValueError as error:
        raise UserError(f"{error}.", code=2) from error
    recipe_files.check(recipe_file, plain)
    images = opened(config) if opened else open_configured(config, data_dir)
    if epochs is None:
        config = replace(config, settings=config.settings.long_enough(len(images.train)))
    return Plan(replace(config, data=images.name), recipe_file, images)


def _plain(value: Any) -> Any:
    """An option as a configuration holds it: a tuple for a list, and Python's own number for one of numpy's."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(_plain, value)) if isinstance(value, list) else value


def all_options(recipe_file: RecipeFile, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a recipe: the given ones, and the defaults of the others."""
    options = recipe_files.signature(recipe_file).options
    return {option.name: option.default for option in options} | dict(given)


def open_configured(config: Config, data_dir: Path | str | None) -> Dataset:
    """Opens the data set of a configuration. Logs its note as a warning, for instance that a smaller data set is used."""
    data = open_data(
        config.data,
        data_dir=Path(data_dir) if data_dir else None,
        image_size=config.image_size,
        split_seed=config.split_seed,
        skip_bad=config.skip_bad,
    )
    if data.note:
        log.warning(data.note)
    sizes = f"{len(data.train):,} to train on, {len(data.val):,} to validate, {len(data.test):,} to test"
    log.debug(f"data {data.name} from {data.place}: {sizes}; SHA-256 {data.fingerprint[:16]}")
    return data


def opener(data_dir: Path | str | None) -> Callable[[Config], Dataset]:
    """Opens the data of configurations, and once only where the next one has the same, as in most sweeps."""
    last: dict[tuple[object, ...], Dataset] = {}

    def opened(config: Config) -> Dataset:
        key = config.data, config.image_size, config.split_seed, config.skip_bad
        if key not in last:
            last.clear()
            last[key] = open_configured(config, data_dir)
            last[last[key].name, *key[1:]] = last[key]  # auto has chosen one
        return last[key]

    return opened


def command(config: Config, recipe_file: RecipeFile) -> str:
    """The command that trains this configuration: its options that are not the defaults, its epochs and its data."""
    signature = recipe_files.signature(recipe_file)
    defaults = {option.name: option.default for option in signature.options}
    defaults |= {each.name: each.default for each in (*fields(Settings), *fields(Config))}
    defaults |= {name: value for name, value in signature.settings.items() if name in RECIPE_DEFAULTS}
    named = {
        name: value
        for name, value in arguments(config).items()
        if name in ("data", "epochs") or value != defaults[name]
    }
    del named["recipe"]
    words = [typed(name, value) for name, value in named.items()]
    return " ".join(["aelab train", shlex.quote(config.recipe), *words])


def typed(name: str, value: object) -> str:
    """An option as it is typed on the command line."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {shlex.quote(','.join(map(str, value)) if isinstance(value, tuple) else str(value))}"


def arguments(config: Config) -> dict[str, Any]:
    """The arguments of `train` that train this configuration."""
    return {
        **config.options,
        "recipe": config.recipe,
        "data": config.data,
        "image_size": config.image_size,
        "split_seed": config.split_seed,
        "start": config.start,
        "skip_bad": config.skip_bad,
        **asdict(config.settings),
    }


def given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are not None."""
    return {key: value for key, value in settings.items() if value is not None}
