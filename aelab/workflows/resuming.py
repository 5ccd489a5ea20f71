"""Resumes a stopped run: chooses it, compares it with what it was, and refuses it if it has become another training."""

import json
import logging
import shlex
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aelab.errors import UserError, checked
from aelab.files import read_small_file
from aelab.recipe_files import RecipeFile
from aelab.tracking import RunInfo, RunWriter, Store
from aelab.training import Group, Torchrun, Trainer, newest, present, rate_factor, restore
from aelab.workflows.following import Watch, complete, finished
from aelab.workflows.loading import configuration, start_weights
from aelab.workflows.planning import Config, Plan, all_options, open_configured
from aelab.workflows.run import Run
from aelab.workflows.signals import run_status, signals
from aelab.workflows.together import check_divisible, joined, prepare

log = logging.getLogger(__name__)

SAME_BITS = {"0.1.0", "0.2.0"}  # versions of aelab that train an unchanged recipe to the same weights


@checked
def resume(
    run: str | None = None,
    *,
    epochs: int | None = None,
    force: bool = False,
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
    offline: bool = False,
    given: Mapping[str, Any] | None = None,
) -> Run:
    """Continues a stopped run from its last checkpoint as if it had never stopped, or from the start if it has none.

    `run` is named as in `load`, except that a recipe's name means its newest stopped run, and None the newest stopped run of
    all. More `epochs` lengthen a run, even a finished one. Raises UserError if recipe, data or versions have changed; with
    `force` that is a warning. `given` are options of `train`, typed again, that must agree with those of the run. Raises
    Stopped if a signal ends the run again.
    """
    group = joined(data_dir)
    store = Store(tracking_uri, offline, create=False, warn=log.warning)
    info = choose(run, store, longer=epochs is not None)
    if given is not None:
        refuse_changes(info, store, given)
    return resume_run(info, store, data_dir=data_dir, epochs=epochs, force=force, group=group)


def resume_run(
    found: RunInfo,
    store: Store,
    *,
    data_dir: Path | str | None = None,
    epochs: int | None = None,
    force: bool = False,
    watch: Watch | None = None,
    group: Group | None = None,
    recipe_file: RecipeFile | None = None,
) -> Run:
    """Continues the run that the store knows as `found`, in the processes of `group` if there is one; see `resume`.

    `recipe_file` is its recipe's, if the user typed it.
    """
    with signals() as caught, store.held(found, force) as info:
        config, recipe_file = configuration(info, store, recipe_file)
        longer = _longer(info, config, epochs, store.typed)
        if epochs is not None:
            config = replace(config, settings=replace(config.settings, epochs=epochs))
        planned = Plan(config, recipe_file, open_configured(config, data_dir))
        check_divisible(planned, group)
        recipe = planned.build()
        if group:
            prepare(group, planned, recipe)
        device = next(recipe.parameters()).device
        folder = store.folder(info) / "checkpoints"
        last, best = newest(folder, "last"), newest(folder, "best")
        if last is None and present(folder, "last") and not force:
            evaluate = "Its best weights can be evaluated with aelab eval." if best else ""
            raise UserError(
                f"every checkpoint of {info.name} that could be continued is damaged.",
                f"Start it again from the beginning with --force. {evaluate}".strip(),
            )
        now = planned.facts(device)
        if last:
            _check_same(info, last.manifest, now, force)
        else:
            began = {key: info.tags.get(f"aelab.{key}") for key in ("recipe_sha256", "data_fingerprint")}
            _check_same(info, began, {key: now[key] for key in began}, force)
        run = store.reopen(info, begin=False)
        try:
            trainer = Trainer(recipe, planned.data.to(device), config.settings, group)
            if last:
                restore(trainer, last, best)
            elif config.start:
                start_weights(recipe, planned, store)
            if longer:
                _lengthen(trainer, info, planned, run)
            store.begin(run)
        except BaseException:
            run.close()
            raise
        with run_status(run, caught):
            log.info(f"{run.name}  continues at step {trainer.progress.step:,} of {trainer.steps:,}")
            validation = complete(trainer, planned, run, caught, watch)
    return finished(run, planned, trainer, store, validation)


def _longer(info: RunInfo, config: Config, epochs: int | None, typed: str) -> bool:
    """Whether a run becomes longer. Raises UserError if it would become shorter, or has finished and does not become longer.

    `typed` is the option that names the store, for the commands in the message.
    """
    had = config.settings.epochs
    limit = f" and --max-steps {config.settings.max_steps}" if config.settings.max_steps else ""
    if epochs is not None and epochs < had:
        raise UserError(
            f"--epochs {epochs}: {info.name} has {had} epochs{limit}; a run can only become longer.", code=2
        )
    longer = epochs is not None and epochs > had
    if info.status == "FINISHED" and not longer:
        name = shlex.quote(info.name)
        raise UserError(
            f"{info.name} has finished; there is nothing to resume.",
            f"Look at it: aelab eval {name}{typed}",
            f"Train it longer: aelab resume {name}{typed} --epochs N, more than {had}",
            code=2,
        )
    return longer


def _lengthen(trainer: Trainer, info: RunInfo, planned: Plan, run: RunWriter) -> None:
    """Records that a run has more epochs than it began with. Raises UserError if they would change nothing."""
    settings = planned.config.settings
    if trainer.progress.step >= trainer.steps:
        raise UserError(
            f"--max-steps {settings.max_steps} of {info.name} are done: more epochs change nothing.", code=2
        )
    if trainer.out_of_patience:
        raise UserError(
            f"--patience {settings.patience} has ended {info.name}: more epochs change nothing.",
            "Start a new training with more patience, or without.",
            code=2,
        )
    identity = planned.identity
    facts = json.loads(read_small_file(run.folder / "config.json"))
    if _took_other_rates(trainer, facts["settings"]["epochs"]):
        identity += " lengthened"
        log.warning(
            f"the {settings.schedule} schedule of {info.name} is stretched from here on: "
            f"the result differs from that of a run of {settings.epochs} epochs from the start."
        )
    run.json("config.json", {**facts, "settings": asdict(settings)})
    lengthened = f"from {info.params.get('epochs')} to {settings.epochs} epochs"
    run.tags({"aelab.identity": identity, "aelab.lengthened": lengthened})


def _took_other_rates(trainer: Trainer, epochs: int) -> bool:
    """Whether a run of `epochs` epochs has taken other learning rates so far than it would have taken with its present ones."""
    settings, at, phases = trainer.settings, trainer.progress, trainer.phases
    if settings.schedule == "constant":
        return False
    if len(phases) > 1 or phases[0].epochs != settings.epochs:
        return True  # as phases are of other lengths, it is not worked out
    last = max(0, at.epoch * trainer.batches + at.batch - 1)
    before, now = (rate_factor(settings, last, length * trainer.batches) for length in (epochs, settings.epochs))
    return before != now


def _check_same(info: RunInfo, before: Mapping[str, Any], now: Mapping[str, Any], force: bool) -> None:
    """Raises UserError, or warns with `force`, if facts differ from those when a run began. Another device only warns."""
    before, now = _flat(before), _flat(json.loads(json.dumps(now)))  # JSON turns tuples into lists
    if {before.get("aelab"), now.get("aelab")} <= SAME_BITS:
        now["aelab"] = before["aelab"]
    differing = [key for key in now if json.dumps(before.get(key)) != json.dumps(now[key])]  # 1.0 and true are not 1
    words = {"recipe_sha256": "the recipe's source has changed", "data_fingerprint": "the data have changed"}
    lines = [
        words.get(key) or f"{key}: {before.get(key)!s:.60}, now {now[key]}" for key in differing if key != "device"
    ]
    if "device" in differing:
        was = f"{before.get('device')!s:.60}"
        log.warning(f"{info.name} began on {was}; on {now['device']} its numbers may differ in the last bits.")
    if lines and not force:
        raise UserError(
            f"{info.name} is no longer the training that it was: {'; '.join(lines)}.",
            "Continue it anyway with --force, or start a new training.",
        )
    for line in lines:
        log.warning(f"{line}; continuing anyway.")


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts with options and versions at the top level."""
    flat: dict[str, Any] = {}
    for key, value in facts.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def refuse_changes(info: RunInfo, store: Store, given: Mapping[str, Any]) -> None:
    """Raises UserError, with the differences, if the given options are not those of the run that is resumed.

    `given` maps options of `train` and of the recipe, and "recipe", to what was typed. More epochs are allowed.
    """
    config, recipe_file = configuration(info, store)
    was = {
        **all_options(recipe_file, config.options),
        **asdict(config.settings),
        "data": config.data,
        "image_size": config.image_size,
        "split_seed": config.split_seed,
        "skip_bad": config.skip_bad,
        "name": info.name,
    }
    changed = [
        f"--{key.replace('_', '-')} {given[key]}, was {was[key]}"
        for key in sorted(given.keys() & was.keys() - {"epochs", "device"})
        if given[key] != was[key] and (key, given[key]) != ("data", "auto")
    ]
    recipe = Path(config.recipe).stem
    if given.get("recipe", recipe) != recipe:
        changed.insert(0, f"recipe {given['recipe']}, was {recipe}")
    if changed:
        raise UserError(
            f"{info.name} was begun with other options: {'; '.join(changed)}.", "Leave them out to continue it.", code=2
        )


def stopped_run(planned: Plan, store: Store) -> RunInfo | None:
    """The newest run of the same training, if it was stopped and can be resumed; else None."""
    store.mark_dead()
    last = store.newest(kind="run", identity=planned.identity)
    return last if last and _can_continue(last, store) else None


def run_before_restart(planned: Plan, store: Store, launched: Torchrun | None) -> RunInfo | None:
    """The run that this command began before torchrun started its processes again, if it can be continued; else None.

    Raises UserError if it failed so that another one would fail too.
    """
    if not launched:
        return None
    store.mark_dead()
    begun = store.newest(kind="run", identity=planned.identity, torchrun=launched.id)
    if begun is None or _can_continue(begun, store):
        return begun
    if launched.restarts:
        raise UserError(f"{begun.name} {_outcome(begun)}; it is not started again.")
    return None


def _can_continue(info: RunInfo, store: Store) -> bool:
    """Whether a run was stopped and a resume can continue it, which it cannot if the loss was not finite."""
    if info.status not in ("KILLED", "FAILED") or info.tags.get("aelab.diagnostics", "").startswith("not finite"):
        return False
    folder = store.folder(info)
    saved = present(folder / "checkpoints", "last")
    return bool(saved) or (info.interrupted and (folder / "config.json").exists())


def choose(name: str | None, store: Store, longer: bool = False) -> RunInfo:
    """The run to resume; see `resume`.

    With `longer`, finished runs count too. Runs of a sweep come last. Raises UserError if there is none.
    """
    store.mark_dead()
    trained = "tags.`aelab.kind` = 'run'"
    newest = next(iter(store.runs(trained, recipe=name, limit=1)), None)
    if name is not None and (not newest or store.named(name)):
        return store.find(name)
    ended = trained if longer else f"{trained} and attributes.status != 'FINISHED'"
    for parent in ("IS NULL", "IS NOT NULL"):
        for run in store.each(f"{ended} and tags.`mlflow.parentRunId` {parent}", recipe=name):
            if (longer and run.status == "FINISHED") or _can_continue(run, store):
                log.info(f"{run.name}  is the newest run{f' of {name}' if name else ''} that can be resumed")
                return run
    of = f" of {name}" if name else ""
    if not newest:
        raise UserError(f"there is no run in {store.shown_uri}.", "Start one: aelab train vae", code=2)
    advice = "See: aelab runs"
    if newest.status == "FINISHED":
        advice = f"Make it longer: aelab resume {shlex.quote(newest.name)}{store.typed} --epochs N"
    raise UserError(
        f"no run{of} was stopped so that it could be resumed; the newest, {newest.name}, {_outcome(newest)}.",
        advice,
        code=2,
    )


def _outcome(info: RunInfo) -> str:
    """The status of a run in words, with its reason."""
    words = {"FINISHED": "has finished", "RUNNING": "is running", "FAILED": "has failed", "KILLED": "was killed"}
    reason = info.tags.get("aelab.reason", "").partition("\n")[0]
    return words.get(info.status, info.status.lower()) + f" ({reason})" * bool(reason)
