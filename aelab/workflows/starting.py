"""Trains a new run: plans it, starts it in the store, and trains it to the end."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from aelab import recipe_files
from aelab.errors import UserError, checked
from aelab.recipe import Autoencodes, Generates, Recipe
from aelab.tracking import RunInfo, Store
from aelab.training import Group, Trainer, device_name, torchrun
from aelab.workflows.card import environment
from aelab.workflows.following import Watch, complete, finished
from aelab.workflows.loading import configuration, start_weights, warn_of_shadowing
from aelab.workflows.planning import Plan, arguments, given, plan
from aelab.workflows.resuming import resume_run, run_before_restart, stopped_run
from aelab.workflows.run import Run
from aelab.workflows.signals import run_status, signals
from aelab.workflows.together import check_divisible, joined, prepare

log = logging.getLogger(__name__)

FEW_IMAGES = 500  # to train on: PCA beat all autoencoders that were tried on 92 and 367 photographs unchanged
LONGEST_NAME = 100  # characters of a run's name, which stands in tables and at the beginning of lines


@checked
def train(
    recipe: str | Path,
    *,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    data: str | Path = "auto",
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
    name: str | None = None,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    offline: bool = False,
    resume_stopped: Callable[[RunInfo], bool] | None = None,
    **options: Any,
) -> Run:
    """Trains a recipe, given by its name or by the path of its file, and returns the run with the kept weights.

    The arguments are the options of `aelab train`, with the same names, defaults and checks; `options` are the recipe's
    own, such as `latent_dim`. Where `epochs`, `batch_size` (in images), `ema`, `schedule` or `warmup` (in steps) is None,
    the recipe's default holds. `image_size` is in pixels, `patience` in epochs. `augment` lists random changes of
    the training images, such as "flip,shift". `start` names a run whose weights come
    first. `name` has 100 characters at most.

    If the last run of the same training was stopped, `resume_stopped` decides whether to continue it instead; by default
    there is a warning and a new run. Raises UserError if the training cannot begin or fails, and Stopped if a signal ends
    it; the status of the run says so.
    """
    if name and len(name) > LONGEST_NAME:
        raise UserError(
            f"--name: {len(name)} characters are too many; a run's name has {LONGEST_NAME} at most.", code=2
        )
    group = joined(data_dir)
    planned = plan(
        str(recipe),
        epochs=epochs,
        batch_size=batch_size,
        seed=seed,
        data=str(data),
        data_dir=data_dir,
        image_size=image_size,
        skip_bad=skip_bad,
        split_seed=split_seed,
        device=device,
        precision=precision,
        max_steps=max_steps,
        patience=patience,
        ema=ema,
        schedule=schedule,
        warmup=warmup,
        skip_nonfinite=skip_nonfinite,
        augment=augment,
        start=start,
        **options,
    )
    check_divisible(planned, group)
    store = Store(tracking_uri, offline, warn=log.warning)
    planned = with_start(planned, store)
    if begun := run_before_restart(planned, store, torchrun()):
        return resume_run(begun, store, data_dir=data_dir, group=group)
    if stopped := stopped_run(planned, store):
        if resume_stopped and resume_stopped(stopped):
            return resume_run(stopped, store, data_dir=data_dir, group=group)
        if not resume_stopped:
            same = f"{stopped.name} of the same command was stopped; this is a new run."
            log.warning(f"{same} Continue that one: aelab resume {stopped.id[:8]}{store.typed}")
    return start_run(planned, store, experiment=experiment, name=name, group=group)


@checked
def train_like(
    run: str,
    *,
    recipe: str | None = None,
    data_dir: Path | str | None = None,
    name: str | None = None,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    offline: bool = False,
    resume_stopped: Callable[[RunInfo], bool] | None = None,
    **changes: Any,
) -> Run:
    """Trains what a run was trained with, except for the options in `changes`, which are those of `train`.

    The run is named as in `load`. Raises UserError if there is none, if it is of another recipe than `recipe`, and as `train`
    does.
    """
    store = Store(tracking_uri, offline, create=False, warn=log.warning)
    info = store.find(run)
    config, recipe_file = configuration(info, store)
    if recipe and recipe_file.name != recipe_files.find(recipe).name:
        raise UserError(f"{info.name} is a run of {recipe_file.name}, not of {recipe}.", code=2)
    return train(
        **{**arguments(config), **changes},
        data_dir=data_dir,
        name=name,
        experiment=experiment,
        tracking_uri=tracking_uri,
        offline=offline,
        resume_stopped=resume_stopped,
    )


def with_start(planned: Plan, store: Store) -> Plan:
    """The plan with the id of the run that it starts from instead of the name that was typed."""
    config = planned.config
    return replace(planned, config=replace(config, start=store.find(config.start).id)) if config.start else planned


def start_run(
    planned: Plan,
    store: Store,
    *,
    experiment: str | None = None,
    name: str | None = None,
    parent: str | None = None,
    watch: Watch | None = None,
    group: Group | None = None,
) -> Run:
    """Trains a new run as planned, under the `parent` run of a sweep or in the processes of a `group`; see `train`."""
    config, recipe_file, data = planned.config, planned.recipe_file, planned.data
    warn_of_shadowing(recipe_file)
    recipe = planned.build()
    if config.start:
        start_weights(recipe, planned, store)
    if group:
        prepare(group, planned, recipe)
    if len(data.train) < FEW_IMAGES and not (config.settings.augment or parent):
        reconstructs = isinstance(recipe, Autoencodes) and not isinstance(recipe, Generates)
        better = ": PCA often leaves less error" if reconstructs else ""
        log.warning(
            f"{len(data.train)} images are few to train on{better}. Show them changed: --augment flip,shift "
            "(without flip where left and right differ)"
        )
    device = next(recipe.parameters()).device
    launched = torchrun()
    with signals() as caught:
        run = store.create(
            experiment,
            name or f"{recipe_file.name}-",
            params=_params(planned, recipe),
            tags={
                "aelab.kind": "run",
                "aelab.identity": planned.identity,
                "aelab.recipe": recipe_file.name,
                "aelab.recipe_sha256": recipe_file.sha256,
                "aelab.version": metadata.version("aelab"),
                "aelab.torch": torch.__version__,
                "aelab.device": device_name(device),
                "aelab.data": data.name,
                "aelab.data_fingerprint": data.fingerprint,
                "aelab.data_note": data.note,
                **given({"aelab.monitor": recipe.monitor, "aelab.torchrun": launched.id if launched else None}),
            },
            dataset={
                "name": data.name,
                "digest": data.digest,
                "source_type": "local",
                "source": json.dumps({"place": data.place}),
            },
            parent=parent,
        )
        with run_status(run, caught):
            log.debug(f"run {run.id} in {store.shown_uri}, files in {run.folder}")
            facts = {**asdict(config), "options": planned.options, "run_id": run.id}
            run.json("config.json", {**facts, "data_fingerprint": data.fingerprint})
            run.json("environment.json", environment(device))
            run.text(f"recipe/{recipe_file.path.name}", recipe_file.source)
            trainer = Trainer(recipe, data.to(device), config.settings, group)
            log.info(
                f"{run.name}  {len(data.train):,} images of {data.name}, {trainer.steps:,} "
                f"step{'s' * (trainer.steps > 1)}, {device_name(device)}" + (f" x {group.size}" if group else "")
            )
            validation = complete(trainer, planned, run, caught, watch)
    return finished(run, planned, trainer, store, validation)


def _params(planned: Plan, recipe: Recipe) -> dict[str, Any]:
    config, data = planned.config, planned.data
    return {
        "recipe": planned.recipe_file.name,
        **planned.options,
        **given(asdict(config.settings)),
        "data": data.name,
        **given({"start": config.start}),
        "image_size": "x".join(map(str, data.image)),
        "split_seed": data.split_seed,
        "images_train": len(data.train),
        "images_val": len(data.val),
        "images_test": len(data.test),
        "parameters": sum(p.numel() for p in recipe.parameters()),
    }
