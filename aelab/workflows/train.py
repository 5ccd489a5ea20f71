"""One run from its configuration to its end: started, or opened again with its best weights."""

import copy
import hashlib
import json
import math
import signal
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from aelab import __version__, recipe_files
from aelab.console import Screen
from aelab.data import Dataset, open_data
from aelab.data.memory import require
from aelab.errors import UserError
from aelab.evaluation.diagnostics import diagnose
from aelab.evaluation.evaluate import eval_mode, evaluate
from aelab.evaluation.report import Report
from aelab.files import small
from aelab.recipe import ImageShape, Recipe
from aelab.recipe_files import RecipeFile
from aelab.tracking import RunInfo, Store
from aelab.training import checkpoint, weights
from aelab.training.checkpoint import Checkpoint
from aelab.training.device import device_name, pick_device
from aelab.training.trainer import Training, check_names
from aelab.workflows.config import Config, environment, given, model_card
from aelab.workflows.signals import run_status, signals

LARGEST = 100_000  # pixels on a side that an image can have, and classes


@dataclass(frozen=True)
class Outcome:
    """A finished training: the run, the recipe with its best weights, the data, and the pictures that were written."""

    info: RunInfo
    recipe: Recipe
    data: Dataset
    validation: Mapping[str, float]
    pictures: list[Path]


def open_config_data(config: Config, data_dir: Path | None, screen: Screen) -> Dataset:
    """Opens the data set that a configuration names, and says in yellow if another one stands in for it."""
    with screen.fetching() as advance:
        data = open_data(
            config.data, data_dir=data_dir, image_size=config.image_size, split_seed=config.split_seed,
            skip_bad=config.skip_bad, advance=advance,
        )  # fmt: skip
    if data.note:
        screen.warn(data.note)
    return data


def prepare(config: Config, page: RecipeFile, data: Dataset) -> Recipe:
    """The recipe on its device, initialised by the seed of the configuration."""
    device = pick_device(config.settings.device)
    if config.settings.precision == "tf32" and device.type != "cuda":
        raise UserError(f"--precision tf32 is for CUDA; this is {device.type}.", code=2)
    if config.settings.precision == "tf32":
        torch.set_float32_matmul_precision("high")
    batch = min(config.settings.batch_size, len(data.train))
    if device.type == "cpu":  # a GPU raises; here the kernel would end the process
        size = 4 * batch * math.prod(data.image)
        require(
            3 * size,
            f"steps of {batch:,} images of {' x '.join(map(str, data.image))}",
            "Use a smaller --batch-size, or smaller images: --image-size 64",
        )  # the images, their copies, the gradient
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(config.settings.seed)
    recipe = recipe_files.build(page, data.image, config.options, len(data.classes)).to(device)
    if config.settings.patience is not None and recipe.monitor is None:
        raise UserError("--patience: this recipe keeps its last weights, so there is no figure to stop by.", code=2)
    if not any(phase.epochs for phase in recipe.phases(config.settings.epochs)):
        raise UserError("there is nothing to train: with these options no phase has an epoch.", code=2)
    if batch == 1:
        _refuse_single(recipe, page, data, config.settings.epochs)
    for labels in {phase.labels for phase in recipe.phases(1) if phase.labels}:
        data.train.labelled(labels, config.settings.seed)  # raises before there is a run
    names: Iterable[str] = ()
    with eval_mode(recipe), suppress(Exception):  # whatever else is wrong with the loss, the training will say
        names = recipe.loss(*(part.to(device) for part in data.val.batch(slice(0, 2))))[1]
    check_names(names, page.path.name)
    return recipe


def _refuse_single(recipe: Recipe, page: RecipeFile, data: Dataset, epochs: int) -> None:
    """Tries a step of each phase with one image, on a copy. Raises UserError where a layer normalises over the batch."""
    with eval_mode(recipe):
        phases = copy.deepcopy(recipe).train().phases(epochs)
        one = replace(data.train, device=next(recipe.parameters()).device).batch(slice(1))
        for phase in phases:
            x, y = (torch.cat([part, part]) for part in one) if phase.unlabelled else one
            try:
                with torch.enable_grad():
                    phase.step(x, y, **phase.optimizers)
            except Exception as error:  # whatever else it is, the training will meet and say it
                if "more than 1 value per channel" in str(error):
                    raise UserError(
                        f"--batch-size 1: {page.name} normalises over the images of a batch, and one has no variance.",
                        "Use --batch-size 2 or more.", code=2,
                    ) from error  # fmt: skip


def identity(config: Config, page: RecipeFile, data: Dataset) -> str:
    """A SHA-256 of all that determines a run's numbers but the machine: recipe source, options, settings, data, start.

    Two runs with the same one have, on one machine, the same numbers.
    """
    settings = {key: value for key, value in asdict(config.settings).items() if key != "device"}
    if not settings["skip_nonfinite"]:
        del settings["skip_nonfinite"]  # an option that came later
    facts = [page.sha256, every_option(config, page), settings, data.fingerprint, config.start]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def every_option(config: Config, page: RecipeFile) -> dict[str, Any]:
    """The recipe's options, typed or not."""
    return {option.name: option.default for option in recipe_files.options(recipe_files.load(page))} | dict(
        config.options
    )


def begin_with(recipe: Recipe, config: Config, page: RecipeFile, store: Store, screen: Screen) -> None:
    """Loads the weights of the run that the configuration starts from. Raises UserError where they do not fit."""
    assert config.start
    other = open_run(store.find(config.start), store, screen, config.settings.device)
    if other.page.name != page.name:
        raise UserError(f"--start {other.info.name}: it is a run of {other.page.name}, not of {page.name}.", code=2)
    try:
        weights.load(recipe, other.recipe.state_dict())
    except ValueError as error:
        raise UserError(f"--start {other.info.name}: its weights do not fit these options: {error}.", code=2) from error


def start(
    config: Config,
    store: Store,
    screen: Screen,
    *,
    data: Dataset,
    experiment: str | None = None,
    name: str | None = None,
    parent: str | None = None,
) -> Outcome:
    """Trains a new run on `data`. Raises UserError if it cannot start or fails, Stopped on a signal; the run is then closed."""
    config = replace(config, data=data.name, start=store.find(config.start).id if config.start else None)
    page = recipe_files.find(config.recipe)
    say_shadowed(page, screen)
    recipe = prepare(config, page, data)
    if config.start:
        begin_with(recipe, config, page, store, screen)
    device = next(recipe.parameters()).device
    every = every_option(config, page)
    with signals() as caught:
        run = store.create(
            experiment,
            name or f"{page.name}-",
            params={
                "recipe": page.name, **every, **given(asdict(config.settings)), "data": data.name,
                **given({"start": config.start}), "image_size": "x".join(map(str, data.image)), "split_seed": data.split_seed,
                "images_train": len(data.train), "images_val": len(data.val), "images_test": len(data.test),
                "parameters": sum(p.numel() for p in recipe.parameters()),
            },
            tags={
                "aelab.kind": "run", "aelab.identity": identity(config, page, data),
                "aelab.recipe": page.name, "aelab.recipe_sha256": page.sha256,
                "aelab.version": __version__, "aelab.torch": torch.__version__, "aelab.device": device_name(device),
                "aelab.data": data.name, "aelab.data_fingerprint": data.fingerprint, "aelab.data_note": data.note,
            },
            dataset={
                "name": data.name, "digest": data.fingerprint[:16], "source_type": "local",
                "source": json.dumps({"place": data.place}),
            },
            parent=parent,
        )  # fmt: skip
        with run_status(run, screen, caught):
            facts = {**asdict(config), "options": every, "run_id": run.id, "data_fingerprint": data.fingerprint}
            run.json("config.json", facts)
            run.json("environment.json", environment(device))
            run.text(f"recipe/{page.path.name}", page.source)
            training = Training(recipe, data.to(device), config.settings, run, screen)
            screen.note(
                f"{run.name}  {len(data.train):,} images of {data.name}, {training.steps:,} "
                f"step{'s' * (training.steps > 1)}, {device_name(device)}"
            )
            validation, written = complete(training, config, page, caught)
    return Outcome(store.get(run.id), recipe, training.data, validation, written)


def facts_of(config: Config, page: RecipeFile, data: Dataset, device: torch.device) -> dict[str, Any]:
    """What a checkpoint is of: a resume compares it."""
    return {
        "recipe": page.name, "recipe_sha256": page.sha256, "options": every_option(config, page),
        "image": list(data.image), "classes": len(data.classes), "data": data.name, "data_fingerprint": data.fingerprint,
        "versions": {"aelab": __version__, "torch": torch.__version__}, "device": device_name(device),
    }  # fmt: skip


def complete(
    training: Training, config: Config, page: RecipeFile, caught: "list[signal.Signals]"
) -> tuple[dict[str, float], list[Path]]:
    """Trains to the end; then validates the best weights, draws their pictures and writes the model card."""
    run, data = training.run, training.data
    training.facts = {"run_id": run.id, **facts_of(config, page, data, training.device)}
    training.fit(lambda: bool(caught))
    training.use_best()
    validation = evaluate(training.recipe, data.val)
    written = [run.picture(f"pictures/{name}.png", picture) for name, picture in training.gallery()]
    at = training.progress
    found = diagnose(training.recipe, data, validation, (at.best, at.latest), at.step)
    for each in found.faults:
        training.screen.warn(each)
    for each in found.notes:
        training.screen.note(each)
    card = model_card(config, page, training, validation, found)
    run.text("README.md", card)
    run.tags(
        {
            "mlflow.note.content": card,
            "aelab.diagnostics": found.text,
            "aelab.seconds": f"{training.progress.spent:.1f}",
        }
    )
    checkpoint.finish(run.folder / "checkpoints")
    return validation, written


# a run that is there already


@dataclass(frozen=True)
class Opened:
    """A run with its recipe, the best weights loaded (the last where no validation tells)."""

    info: RunInfo
    config: Config
    page: RecipeFile
    recipe: Recipe
    image: tuple[int, int, int]
    classes: int


def configuration(info: RunInfo, store: Store, screen: Screen) -> tuple[Config, RecipeFile]:
    """The configuration of a run and the page of its recipe as it is on this machine today.

    Raises UserError where that is not the user's own (`recipe_files.of_run`): a configuration may come from anyone.
    """
    if info.tags.get("aelab.kind") != "run":
        raise UserError(f"{info.name} is a sweep; name one of its runs: aelab runs", code=2)
    try:
        config = Config.from_json(json.loads(small(store.folder(info) / "config.json")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"the configuration of run {info.name} cannot be read: {error}") from error
    page = recipe_files.of_run(config.recipe, info.recipe)
    say_shadowed(page, screen)
    return config, page


def say_shadowed(page: RecipeFile, screen: Screen) -> None:
    """Says once where ./recipes takes the place of a built-in recipe."""
    if page.shadows:
        screen.once(f"recipes/{page.path.name} is used instead of the built-in recipe {page.name}.")


def open_run(
    info: RunInfo, store: Store, screen: Screen, device: str = "auto", changed: Mapping[str, Any] | None = None
) -> Opened:
    """Loads a run's best weights into its recipe, with some of its options `changed`.

    Raises UserError if it has no checkpoint or does not fit the recipe any more.
    """
    config, page = configuration(info, store, screen)
    folder = store.folder(info) / "checkpoints"
    found = checkpoint.newest(folder, "best", screen.warn) or checkpoint.newest(folder, "last", screen.warn)
    if found is None:
        raise UserError(f"run {info.name} has no checkpoint ({info.status.lower()}).")
    if page.sha256 != info.tags.get("aelab.recipe_sha256"):
        screen.warn(f"{page.path.name} has changed since {info.name} was trained.")
    image, classes = _shape(info, found)
    recipe = recipe_files.build(page, image, {**config.options, **(changed or {})}, classes)
    recipe = recipe.to(pick_device(device))
    try:
        weights.load(recipe, found.weights)
    except ValueError as error:
        if changed:
            raise UserError(f"the weights of {info.name} do not fit these options: {error}.", code=2) from error
        raise UserError(f"the weights of {info.name} do not fit {page.path.name} as it is now: {error}.") from error
    return Opened(info, config, page, recipe.eval(), image, classes)


def _shape(info: RunInfo, found: Checkpoint) -> tuple[ImageShape, int]:
    """The shape of an image and the number of classes of a checkpoint. Raises UserError where they are none of this run's."""
    image: Any = found.manifest.get("image")
    classes: Any = found.manifest.get("classes")
    plain = (
        isinstance(image, list)
        and len(image) == 3
        and all(type(size) is int and 1 <= size <= LARGEST for size in image)
    )
    if not plain or "x".join(map(str, image)) != info.params.get("image_size"):
        raise UserError(
            f"checkpoint {found.path} is of images {image!r:.60}, {info.name} of {info.params.get('image_size')}."
        )
    if type(classes) is not int or not 0 <= classes <= LARGEST:
        raise UserError(f"checkpoint {found.path} has {classes!r:.60} classes.")
    channels, height, width = image
    return (channels, height, width), classes


def run_data(opened: Opened, data_dir: Path | None, screen: Screen, force: bool = False) -> Dataset:
    """The data that a run was trained on. Raises UserError, or warns with `force`, if it is not the same any more."""
    data = open_config_data(opened.config, data_dir, screen)
    _check_data(opened.info, data, screen, force)
    return data.to(next(opened.recipe.parameters()).device)


def _check_data(info: RunInfo, data: Dataset, screen: Screen, force: bool) -> None:
    if data.fingerprint != info.tags.get("aelab.data_fingerprint"):
        what = f"{data.name} in {data.place} is not the data that {info.name} was trained on (its fingerprint differs)."
        if not force:
            raise UserError(what, "Use it all the same with --force.")
        screen.warn(what)


def keep(report: Report, info: RunInfo, store: Store) -> list[Path]:
    """Logs a report to a run, and returns where its pictures are."""
    tracked = store.annotate(info)
    tracked.tags(report.tags)
    for name, values in report.lists.items():
        tracked.json(f"{name}.json", values)
    paths = [tracked.picture(f"pictures/{name}.png", picture) for name, picture in report.pictures.items()]
    tracked.close()
    store.add_figures(info, report.figures)
    return paths
