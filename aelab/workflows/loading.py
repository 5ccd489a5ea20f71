"""Opens a run from the store: its configuration, its recipe file, and its kept weights."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aelab import recipe_files
from aelab.errors import UserError, checked
from aelab.files import read_small_file
from aelab.recipe import ImageShape, Recipe
from aelab.recipe_files import RecipeFile
from aelab.tracking import RunInfo, Store
from aelab.training import Checkpoint, load_weights, newest, pick_device
from aelab.workflows.planning import LARGEST_SIDE, Config, Plan
from aelab.workflows.run import Run

log = logging.getLogger(__name__)


@checked
def load(
    run: str | Path | Run,
    *,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """A run by its id, the start of it, its name, a recipe's name (its newest finished run), its folder, or models:/NAME@ALIAS.

    `options` replace options of the recipe. Raises UserError if there is no such run, if it has no checkpoint, or if its
    weights no longer fit the recipe.
    """
    if isinstance(run, Run):
        return run if not options else open_run(run.info, run.store, device, run.data_dir, options)
    store = Store(tracking_uri, create=False, warn=log.warning)
    return open_run(store.find(str(run)), store, device, Path(data_dir) if data_dir else None, options)


def open_run(
    info: RunInfo,
    store: Store,
    device: str = "auto",
    data_dir: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Run:
    """The run that the store knows as `info`, with its weights; see `load`."""
    config, recipe_file = configuration(info, store)
    found = _kept(info, store)
    changed = recipe_file.sha256 != info.tags.get("aelab.recipe_sha256")
    if changed:
        log.warning(f"{recipe_file.path.name} has changed since {info.name} was trained.")
    log.debug(f"weights of {info.name} from {found.path}")
    image, classes = _shape(info, found)
    try:
        recipe = recipe_files.build(recipe_file, image, {**config.options, **(options or {})}, classes)
    except UserError as error:
        if options or not changed:
            raise
        raise UserError(*str(error).splitlines(), *_file_of_its_time(info, store, recipe_file)) from error
    recipe = recipe.to(pick_device(device))
    try:
        load_weights(recipe, found.weights)
    except ValueError as error:
        if options:
            raise UserError(f"the weights of {info.name} do not fit these options: {error}.", code=2) from error
        raise UserError(
            f"the weights of {info.name} do not fit {recipe_file.path.name} as it is now: {error}.",
            *_file_of_its_time(info, store, recipe_file),
        ) from error
    return Run(info, config, recipe_file, recipe.eval(), image, classes, store, data_dir, info.validation)


def _file_of_its_time(info: RunInfo, store: Store, recipe_file: RecipeFile) -> list[str]:
    """What to do for a run whose recipe has changed since: a line, or none where its own file was not kept."""
    own = store.folder(info) / "recipe" / recipe_file.path.name
    return [f"Copied into ./recipes, the file that trained it is used instead: {own}"] if own.is_file() else []


def _kept(info: RunInfo, store: Store) -> Checkpoint:
    """The checkpoint with the kept weights of a run. Raises UserError if there is none."""
    folder = store.folder(info) / "checkpoints"
    found = newest(folder, "best") or newest(folder, "last")
    if found is None:
        if any(folder.glob("*-*")):
            again = f"Remove the run, and train it again: aelab runs rm {info.name}"
            raise UserError(f"no checkpoint of run {info.name} is intact.", again)
        raise UserError(f"run {info.name} has no checkpoint ({info.status.lower()}).")
    return found


def kept_step(info: RunInfo, store: Store) -> int:
    """The number of steps after which the kept weights of a run were taken. Raises UserError if there are none."""
    return int(_kept(info, store).manifest["step"])


def configuration(info: RunInfo, store: Store, typed: RecipeFile | None = None) -> tuple[Config, RecipeFile]:
    """The configuration of a run, and its recipe file: the one that the user `typed`, or as it is on this machine now.

    Raises UserError if that file is not trusted (`recipe_files.of_run`): a configuration may come from anyone.
    """
    if info.tags.get("aelab.kind") != "run":
        raise UserError(
            f"{info.name} is a {info.tags.get('aelab.kind', 'sweep')}; name one of its runs: aelab runs", code=2
        )
    try:
        config = Config.from_json(json.loads(read_small_file(store.folder(info) / "config.json")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"the configuration of run {info.name} cannot be read: {error}") from error
    recipe_file = typed or recipe_files.of_run(config.recipe, info.recipe)
    warn_of_shadowing(recipe_file)
    return config, recipe_file


def warn_of_shadowing(recipe_file: RecipeFile) -> None:
    """Warns, once, if a recipe in ./recipes replaces a built-in one."""
    if recipe_file.shadows:
        text = f"recipes/{recipe_file.path.name} is used instead of the built-in recipe {recipe_file.name}."
        log.warning(text, extra={"once": True})


def start_weights(recipe: Recipe, plan: Plan, store: Store) -> None:
    """Loads the weights of the run that a plan starts from. Raises UserError if they do not fit."""
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
    """The image shape and the number of classes in a checkpoint. Raises UserError if they are not this run's."""
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
