"""A run that goes on: refused where it is not what it was, and as long as another process writes it."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aelab.console import Screen
from aelab.data import Dataset
from aelab.errors import UserError
from aelab.files import small
from aelab.recipe_files import RecipeFile
from aelab.tracking import WITHOUT_A_WORD, RunInfo, Store
from aelab.training import checkpoint
from aelab.training.trainer import Training
from aelab.workflows.config import Config
from aelab.workflows.signals import run_status, signals
from aelab.workflows.train import (
    Outcome,
    begin_with,
    complete,
    configuration,
    facts_of,
    identity,
    open_config_data,
    prepare,
)


def resume(
    found: RunInfo,
    store: Store,
    screen: Screen,
    data_dir: Path | None = None,
    epochs: int | None = None,
    force: bool = False,
) -> Outcome:
    """Goes on with an unfinished run where its last checkpoint stands, or from the start if it has none.

    With more `epochs` than it had it becomes longer, a finished one too. What differs from the run as it began, such as its
    recipe or its data, is refused, or warned of if `force`. Raises UserError, and Stopped on a signal.
    """
    with signals() as caught, store.held(found, force) as info:
        config, page = configuration(info, store, screen)
        longer = epochs is not None and epochs > config.settings.epochs
        if epochs is not None and epochs < config.settings.epochs:
            raise UserError(f"--epochs {epochs}: {info.name} is one of {config.settings.epochs} epochs.", code=2)
        if info.status == "FINISHED" and not longer:
            raise UserError(
                f"{info.name} has finished; there is nothing to resume.", f"Look at it: aelab eval {shlex.quote(info.name)}",
                f"Train it longer: aelab resume {shlex.quote(info.name)} --epochs N, more than {config.settings.epochs}", code=2,
            )  # fmt: skip
        if epochs is not None:
            config = replace(config, settings=replace(config.settings, epochs=epochs))
        data = open_config_data(config, data_dir, screen)
        recipe = prepare(config, page, data)
        device = next(recipe.parameters()).device
        folder = store.folder(info) / "checkpoints"
        last, best = (checkpoint.newest(folder, kind, screen.warn) for kind in ("last", "best"))
        if last is None and checkpoint.present(folder, "last") and not force:
            look = "Its best weights can be looked at, with aelab eval." if best else ""
            raise UserError(f"no checkpoint of {info.name} that could go on is whole.",
                          f"Begin it again from the start with --force. {look}".strip())  # fmt: skip
        began = {
            "recipe_sha256": info.tags.get("aelab.recipe_sha256"),
            "data_fingerprint": info.tags.get("aelab.data_fingerprint"),
        }
        now = facts_of(config, page, data, device)
        if last:
            _check_same(info, last.manifest, now, screen, force)
        else:
            _check_same(info, began, {key: now[key] for key in began}, screen, force)
        run = store.reopen(info, begin=False)
        try:
            training = Training(recipe, data.to(device), config.settings, run, screen)
            if last:
                training.restore(last, best)
            elif config.start:
                begin_with(recipe, config, page, store, screen)
            if longer:
                _lengthen(training, info, config, page, data)
            store.begin(run)
        except BaseException:
            run.close()
            raise
        with run_status(run, screen, caught):
            screen.note(f"{run.name}  goes on at step {training.progress.step:,} of {training.steps:,}")
            validation, written = complete(training, config, page, caught)
    return Outcome(store.get(run.id), recipe, training.data, validation, written)


def _lengthen(training: Training, info: RunInfo, config: Config, page: RecipeFile, data: Dataset) -> None:
    """Writes down that a run has more epochs than it began with. Raises UserError where they would change nothing."""
    run, settings = training.run, config.settings
    if training.progress.step >= training.steps:
        raise UserError(
            f"--max-steps {settings.max_steps} of {info.name} are done: more epochs change nothing.", code=2
        )
    if training.patience_is_over:
        raise UserError(
            f"--patience {settings.patience} has ended {info.name}: more epochs change nothing.",
            "Train anew with more patience, or without.", code=2,
        )  # fmt: skip
    same = identity(config, page, data)
    if settings.schedule != "constant":
        same += " lengthened"
        training.screen.warn(
            f"the learning rate of {info.name} follows a {settings.schedule}, which is stretched from here on: "
            f"it will not end as a run of {settings.epochs} epochs from the start."
        )
    facts = json.loads(small(run.folder / "config.json"))
    run.json("config.json", {**facts, "settings": asdict(settings)})
    run.tags(
        {"aelab.identity": same, "aelab.lengthened": f"from {info.params.get('epochs')} to {settings.epochs} epochs"}
    )


def _check_same(info: RunInfo, before: Mapping[str, Any], now: Mapping[str, Any], screen: Screen, force: bool) -> None:
    """Refuses, or warns of with `force`, what is not as it was when a run began. Another device is warned of only."""
    before, now = _flat(before), _flat(json.loads(json.dumps(now)))  # tuples are lists there
    differing = [key for key in now if json.dumps(before.get(key)) != json.dumps(now[key])]  # 1.0 and true are not 1
    words = {"recipe_sha256": "the recipe's source has changed", "data_fingerprint": "the data have changed"}
    lines = [
        words.get(key) or f"{key}: {before.get(key)!s:.60}, now {now[key]}" for key in differing if key != "device"
    ]
    if "device" in differing:
        screen.warn(
            f"{info.name} began on {before.get('device')!s:.60}; on {now['device']} its numbers may differ in the last bits."
        )
    if lines and not force:
        raise UserError(
            f"{info.name} cannot go on as it began: {'; '.join(lines)}.",
            "Go on all the same with --force, or train anew.",
        )
    for line in lines:
        screen.warn(f"{line}; going on all the same.")


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The options and versions among the other facts."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def unfinished(config: Config, page: RecipeFile, data: Dataset, store: Store) -> RunInfo | None:
    """The run of the same command, if the last one of it was stopped and can be resumed."""
    config = replace(config, start=store.find(config.start).id if config.start else None)
    store.mark_dead()
    last = store.newest(kind="run", identity=identity(config, page, data))
    return last if last and _can_go_on(last, store) else None


def _can_go_on(info: RunInfo, store: Store) -> bool:
    """Whether a run was stopped where a resume could take it further: not where its loss was not finite."""
    if info.status not in ("KILLED", "FAILED") or info.tags.get("aelab.diagnostics", "").startswith("not finite"):
        return False
    folder = store.folder(info)
    saved = checkpoint.present(folder / "checkpoints", "last")
    cut = info.status == "KILLED" or info.tags.get("aelab.reason", "").startswith(WITHOUT_A_WORD)
    return bool(saved) or (cut and (folder / "config.json").exists())


def chosen(name: str | None, store: Store, screen: Screen, longer: bool = False) -> RunInfo:
    """The run that is to go on: a recipe's name means its newest that was stopped, no name the newest of all.

    Where it is to become `longer`, one that has finished counts too. Those of a sweep come last.
    Raises UserError if there is none.
    """
    store.mark_dead()
    runs = store.runs()
    trained = [run for run in runs if run.tags.get("aelab.kind") == "run" and name in (None, run.recipe)]
    if name is not None and (not trained or any(name in (run.id, run.name) for run in runs)):
        return store.find(name)
    for run in sorted(trained, key=lambda run: run.parent is not None):
        if (longer and run.status == "FINISHED") or _can_go_on(run, store):
            screen.note(f"{run.name}  is the newest run{f' of {name}' if name else ''} that can go on")
            return run
    of = f" of {name}" if name else ""
    if not trained:
        raise UserError(f"there is no run in {store.shown_uri}.", "Start one: aelab train vae", code=2)
    newest = trained[0]
    raise UserError(
        f"no run{of} was stopped so that it could go on; the newest, {newest.name}, {_what_became_of(newest)}.",
        f"Make it longer: aelab resume {shlex.quote(newest.name)} --epochs N"
        if newest.status == "FINISHED"
        else "See: aelab runs",
        code=2,
    )


def _what_became_of(info: RunInfo) -> str:
    """How a run stands, as the end of a sentence."""
    said = {"FINISHED": "has finished", "RUNNING": "is running", "FAILED": "has failed", "KILLED": "was killed"}
    reason = info.tags.get("aelab.reason", "").partition("\n")[0]
    return said.get(info.status, info.status.lower()) + f" ({reason})" * bool(reason)
