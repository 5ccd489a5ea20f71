"""A trained run: its model with the weights that were kept, and what can be done with it."""

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from aelab import recipe_files
from aelab.data import Dataset
from aelab.errors import UserError
from aelab.evaluation import eval_mode
from aelab.files import small
from aelab.recipe import Autoencodes, Decodes, Encodes, Generates, ImageShape, Recipe
from aelab.recipe_files import RecipeFile
from aelab.tracking import RunInfo, Store
from aelab.training import Checkpoint, load_weights, newest, pick_device
from aelab.workflows.planning import LARGEST_SIDE, Config, Plan, open_configured

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)

BLOCK = 250  # images at once


@dataclass(frozen=True)
class Run:
    """A trained run: its recipe with the best weights, or the last where no metric was monitored.

    Images are (N, C, H, W) with pixels in [0, 1] and codes (N, D), on the CPU; arrays of numpy are taken too.
    """

    info: RunInfo  # what the store knows of it
    config: Config
    recipe_file: RecipeFile
    recipe: Recipe
    image: ImageShape
    classes: int  # how many; 0 where the data have none
    store: Store
    data_dir: Path | None = None
    validation: Mapping[str, float] = field(default_factory=dict)  # metrics of these weights on the validation images

    @property
    def id(self) -> str:
        return self.info.id

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of every metric that was logged when the run was opened."""
        return self.info.metrics

    @property
    def folder(self) -> Path:
        """The run's files on this machine."""
        return self.store.folder(self.info)

    @property
    def pictures(self) -> list[Path]:
        """The pictures of the run on this machine."""
        return sorted(self.folder.glob("pictures/*.png"))

    @cached_property
    def device(self) -> torch.device:
        return next(self.recipe.parameters()).device

    def __repr__(self) -> str:
        return f"<Run {self.name} of {self.info.recipe}, {self.info.status.lower()}>"

    def data(self, force: bool = False) -> Dataset:
        """The data that the run was trained on, on its device.

        Raises UserError if they are no longer the same; with `force` that is a warning.
        """
        data = open_configured(self.config, self.data_dir)
        check_data(self.info, data, force)
        return data.to(self.device)

    def encode(self, images: Tensor) -> Tensor:
        """The codes (N, D) of images (N, C, H, W): of a posterior its mean. Raises UserError without an encoder."""
        if not isinstance(self.recipe, Encodes):
            raise UserError(f"{self.name} cannot encode: {self.info.recipe} has no encoder.", code=2)
        return self._through(self.recipe.encode, self._images(images))

    def decode(self, codes: Tensor) -> Tensor:
        """The images (N, C, H, W) of codes (N, D). Raises UserError without a decoder."""
        if not isinstance(self.recipe, Decodes):
            raise UserError(f"{self.name} cannot decode: {self.info.recipe} has no decoder.", code=2)
        return self._through(self.recipe.decode, torch.as_tensor(codes).float())

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) through the code and back. Raises UserError where the recipe does not reconstruct."""
        if not isinstance(self.recipe, Autoencodes):
            raise UserError(f"{self.name} does not reconstruct images: {self.info.recipe} is no autoencoder.", code=2)
        recipe = self.recipe
        return self._through(lambda x: recipe.decode(recipe.encode(x)), self._images(images))

    def sample(self, n: int = 64, *, seed: int = 0) -> Tensor:
        """n images (n, C, H, W) of codes drawn from the prior by `seed`. Raises UserError where there is no prior."""
        if not isinstance(self.recipe, Generates):
            raise UserError(f"{self.name} cannot sample: {self.info.recipe} has no prior to draw codes from.", code=2)
        with eval_mode(self.recipe, seed):
            return self.recipe.decode(self.recipe.sample_prior(n)).cpu()

    def evaluate(self, **options: Any) -> "pd.Series[float]":
        """The metrics on the test images, by name; they are logged to the run. The options are those of aelab.evaluate."""
        from aelab.workflows.evaluating import evaluate

        return evaluate(self, **options).series()

    def figures(self) -> "dict[str, Figure]":
        """Reconstructions of test images, samples and interpolations, as far as the recipe has them, to be shown or saved."""
        from aelab.workflows.drawing import figures

        return figures(self)

    def _images(self, images: Tensor) -> Tensor:
        x = torch.as_tensor(images)
        if x.dtype == torch.uint8:
            raise UserError("images of uint8 are refused: pixels lie in [0, 1] here; divide them by 255.", code=2)
        if tuple(x.shape[1:]) != tuple(self.image):
            shape = " x ".join(map(str, self.image))
            raise UserError(f"{self.name} takes images (N, C, H, W) of {shape}, not {tuple(x.shape)}.", code=2)
        return x.float()

    def _through(self, function: Any, values: Tensor) -> Tensor:
        with eval_mode(self.recipe):
            return torch.cat([function(part.to(self.device)).cpu() for part in _blocks(values)])


def _blocks(values: Tensor) -> Iterator[Tensor]:
    yield from torch.split(values, BLOCK)


def load(
    run: str | Run,
    *,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """A run by its id, the start of it, its name, a recipe's name (its newest finished run), its folder, or models:/NAME@ALIAS.

    `options` are options of the recipe that are to differ from those of the training. Raises UserError where there is no
    such run, where it has no checkpoint, or where its weights do not fit the recipe any more.
    """
    if isinstance(run, Run):
        return run if not options else open_run(run.info, run.store, device, run.data_dir, options)
    store = Store(tracking_uri, create=False, warn=log.warning)
    return open_run(store.find(run), store, device, Path(data_dir) if data_dir else None, options)


def open_run(
    info: RunInfo,
    store: Store,
    device: str = "auto",
    data_dir: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """The run that the store knows as `info`, its weights loaded; see `load`."""
    config, recipe_file = configuration(info, store)
    folder = store.folder(info) / "checkpoints"
    found = newest(folder, "best") or newest(folder, "last")
    if found is None:
        raise UserError(f"run {info.name} has no checkpoint ({info.status.lower()}).")
    if recipe_file.sha256 != info.tags.get("aelab.recipe_sha256"):
        log.warning(f"{recipe_file.path.name} has changed since {info.name} was trained.")
    image, classes = _shape(info, found)
    recipe = recipe_files.build(recipe_file, image, {**config.options, **(options or {})}, classes)
    recipe = recipe.to(pick_device(device))
    try:
        load_weights(recipe, found.weights)
    except ValueError as error:
        if options:
            raise UserError(f"the weights of {info.name} do not fit these options: {error}.", code=2) from error
        raise UserError(
            f"the weights of {info.name} do not fit {recipe_file.path.name} as it is now: {error}."
        ) from error
    return Run(info, config, recipe_file, recipe.eval(), image, classes, store, data_dir, info.validation)


def configuration(info: RunInfo, store: Store) -> tuple[Config, RecipeFile]:
    """The configuration of a run, and the file of its recipe as it is on this machine today.

    Raises UserError where that is not the user's own (`recipe_files.of_run`): a configuration may come from anyone.
    """
    if info.tags.get("aelab.kind") != "run":
        raise UserError(f"{info.name} is a sweep; name one of its runs: aelab runs", code=2)
    try:
        config = Config.from_json(json.loads(small(store.folder(info) / "config.json")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"the configuration of run {info.name} cannot be read: {error}") from error
    recipe_file = recipe_files.of_run(config.recipe, info.recipe)
    warn_of_shadowing(recipe_file)
    return config, recipe_file


def warn_of_shadowing(recipe_file: RecipeFile) -> None:
    """Warns, once, where ./recipes takes the place of a built-in recipe."""
    if recipe_file.shadows:
        text = f"recipes/{recipe_file.path.name} is used instead of the built-in recipe {recipe_file.name}."
        log.warning(text, extra={"once": True})


def check_data(info: RunInfo, data: Dataset, force: bool) -> None:
    """Raises UserError, or warns with `force`, where the data are not those that a run was trained on."""
    if data.fingerprint != info.tags.get("aelab.data_fingerprint"):
        what = f"{data.name} in {data.place} is not the data that {info.name} was trained on (its fingerprint differs)."
        if not force:
            raise UserError(what, "Use it all the same with --force.")
        log.warning(what)


def start_weights(recipe: Recipe, plan: Plan, store: Store) -> None:
    """Loads the weights of the run that a plan starts from. Raises UserError where they do not fit."""
    assert plan.config.start
    other = open_run(store.find(plan.config.start), store, plan.config.settings.device)
    if other.recipe_file.name != plan.recipe_file.name:
        raise UserError(
            f"--start {other.name}: it is a run of {other.recipe_file.name}, not of {plan.recipe_file.name}.", code=2
        )
    try:
        load_weights(recipe, other.recipe.state_dict())
    except ValueError as error:
        raise UserError(f"--start {other.name}: its weights do not fit these options: {error}.", code=2) from error


def _shape(info: RunInfo, found: Checkpoint) -> tuple[ImageShape, int]:
    """The shape of an image and the number of classes of a checkpoint. Raises UserError where they are not this run's."""
    image: Any = found.manifest.get("image")
    classes: Any = found.manifest.get("classes")
    sides = image if isinstance(image, list) and len(image) == 3 else [None]
    plain = all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in sides)
    if not plain or "x".join(map(str, image)) != info.params.get("image_size"):
        raise UserError(
            f"checkpoint {found.path} is of images {image!r:.60}, {info.name} of {info.params.get('image_size')}."
        )
    if type(classes) is not int or not 0 <= classes <= LARGEST_SIDE:
        raise UserError(f"checkpoint {found.path} has {classes!r:.60} classes.")
    channels, height, width = image
    return (channels, height, width), classes
