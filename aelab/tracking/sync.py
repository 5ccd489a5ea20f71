"""Sends what a store does not have yet: spools that an outage left, and runs that were trained offline."""

import platform
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from filelock import FileLock, Timeout
from mlflow.entities import DatasetInput, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException

from aelab.errors import UserError
from aelab.progress_bar import progress_bar
from aelab.tracking import models
from aelab.tracking.info import RunInfo, run_folder
from aelab.tracking.owner import HeldError, hold
from aelab.tracking.sender import METRICS_PER_REQUEST
from aelab.tracking.spool import Entry
from aelab.tracking.store import Store
from aelab.tracking.trouble import deliver, written_once
from aelab.tracking.writer import RunWriter

TRIES = 5  # to copy a run that other clients copy too

ENTITIES: dict[str, Any] = {"metric": Metric, "param": Param, "tag": RunTag}


def replay(store: Store, note: Callable[[str], None]) -> int:
    """Sends the spools of the store's runs that no process is writing, except what the store already has.

    Returns the number of runs sent. Raises UserError, after all have been tried, if the store did not take one.
    """
    sent, failed = 0, []
    store.mark_dead()
    for info in store.runs():
        try:
            folder = run_folder(info)
        except UserError as problem:
            store.warn(f"nothing of {info.name} is sent: {problem}")
            continue
        for spool in sorted(folder.glob("unsent*.jsonl")):
            training = spool.name == "unsent.jsonl"
            try:
                with hold(folder, info.name, info.tags.get("aelab.process", "")), store.asking():
                    if not spool.exists():
                        continue  # another process has just sent it
                    run = RunWriter(
                        store.client, info, training, reopened=True, spool=spool, ended=True, warn=store.warn
                    )
                    run.close()
            except HeldError:
                note(f"{info.name}  is being written: that process sends it")
            except UserError as problem:
                failed.append(f"{info.name}: {problem}")
            else:
                sent += 1
                note(f"{info.name}  sent what was kept in {spool.name}")
    for info in store.runs(view=ViewType.DELETED_ONLY):
        with suppress(UserError):  # its folder is refused, so nothing of it would be sent
            if list(run_folder(info).glob("unsent*.jsonl")):
                restore = store.restore_command(info)
                note(f"{info.name}  is deleted in MLflow; what is unsent is kept. To restore it: {restore}")
    _raise(failed)
    return sent


def push(local: Store, store: Store, note: Callable[[str], None]) -> int:
    """Copies the runs that were trained offline to another store; of runs that were copied before, only what is new.

    A run keeps its name, times, status, metrics, tags and files, and gets a new id. A run that is still being trained is not
    sent. Returns the number of runs sent. Raises UserError if another process is doing the same.
    """
    assert local.database
    only = FileLock(f"{local.database}.sync.lock", timeout=0)
    try:
        only.acquire()
    except Timeout as error:
        raise UserError("another aelab sync is sending the runs of this folder.", "Wait for it to end.") from error
    except OSError as error:
        raise UserError(f"cannot write to {local.database.parent}: {error.strerror or error}.") from error
    try:
        replay(local, note)
        return _push(local, store, note)
    finally:
        only.release()


def _push(local: Store, store: Store, note: Callable[[str], None]) -> int:
    copies: dict[str, str] = {}
    failed: list[str] = []
    waiting = [info for info in local.runs() if info.tags.get("aelab.offline")]
    waiting.sort(key=lambda info: (info.parent is not None, info.started or 0.0))  # parents first
    sent = 0
    with progress_bar("runs sent", len(waiting)) as bar:
        for k, info in enumerate(waiting):
            bar.update(k, text=info.name)
            if info.tags["aelab.offline"] != "yes":
                copies[info.id] = info.tags["aelab.offline"].split()[-1]
            elif info.status == "RUNNING":
                host = info.tags.get("aelab.process", "").partition(" ")[0]
                where = "" if host == platform.node() else f" on {host or 'another machine'}, according to the store"
                note(f"{info.name}  is running{where}: a later aelab sync sends it")
            else:
                try:
                    copies[info.id] = _copy(local, store, info, copies)
                    with local.asking():
                        local.client.log_batch(info.id, tags=[RunTag("aelab.offline", f"sent {copies[info.id]}")])
                except UserError as problem:
                    failed.append(f"{info.name}: {problem}")
                    continue
                note(f"{info.name}  sent as {copies[info.id][:8]} ({info.status.lower()})")
                sent += 1
    _raise(failed)
    return sent


def _raise(failed: list[str]) -> None:
    if failed:
        raise UserError(f"{len(failed)} runs were not sent.", *failed[:2])


def _copy(local: Store, store: Store, info: RunInfo, copies: Mapping[str, str]) -> str:
    """Copies one run, or completes its copy. Returns the id of the copy."""
    for _ in range(TRIES):
        with store.asking():
            target, begun = _target(local, store, info)
            try:
                refused = _fill(local, store, info, copies, target, begun)
            except MlflowException:
                if _is_there(store, target):
                    raise
                continue  # another client has made a copy too, which stays
            if _is_there(store, target):
                break
    else:
        raise UserError("other clients send it at the same time; a later aelab sync completes it")
    for key, why in refused.items():
        store.warn(f"{store.shown_uri} refuses '{key}' of {info.name}: {why}. Everything else is sent.")
    return target


def _is_there(store: Store, run_id: str) -> bool:
    return str(store.client.get_run(run_id).info.lifecycle_stage) == "active"


def _target(local: Store, store: Store, info: RunInfo) -> tuple[str, bool]:
    """The id of the copy of a run, which is created if there is none, and whether it was there.

    Clients with copies of one folder may create theirs at the same moment, and MLflow has nothing that refuses the second. So
    each that has created one then deletes all but the one with the smallest id: of any two, whoever created the later sees both.
    """
    if before := store.newest(offline_id=info.id):
        return before.id, True
    created = store.client.create_run(
        store.experiment(local.client.get_experiment(info.experiment_id).name),
        start_time=None if info.started is None else int(info.started * 1000),
        run_name=info.name,
        tags={"aelab.offline_id": info.id, "aelab.recipe": info.recipe},  # by which a later sync finds it
    ).info.run_id
    there = [each.id for each in store.runs(f"tags.`aelab.offline_id` = '{info.id}'")]
    first, *others = sorted({created, *there})
    for each in others:
        with suppress(MlflowException):  # its own client was faster
            store.client.delete_run(each)
    return first, first != created


def _fill(
    local: Store, store: Store, info: RunInfo, copies: Mapping[str, str], target: str, begun: bool
) -> dict[str, str]:
    """Sends what the copy does not have, if it was `begun` before. Returns what the store refuses, and why.

    Raises MlflowException if the copy is deleted meanwhile.
    """
    client, folder = store.client, local.folder(info)
    own = {"aelab.offline", "aelab.model", "mlflow.parentRunId"}
    refused: dict[str, str] = {}
    source = local.client.get_run(info.id)
    tags = {key: value for key, value in source.data.tags.items() if key not in own} | {"aelab.offline_id": info.id}
    if info.parent and info.parent in copies:
        tags["mlflow.parentRunId"] = copies[info.parent]

    def post(batch: list[Entry]) -> None:
        if batch[0][0] == "file":
            path = batch[0][1]
            client.log_artifact(target, str(folder / path), path.rpartition("/")[0] or None)
            return
        made = {kind: [make(*entry[1:]) for entry in batch if entry[0] == kind] for kind, make in ENTITIES.items()}
        written_once(lambda: client.log_batch(target, metrics=made["metric"], params=made["param"], tags=made["tag"]))

    def check() -> None:
        if not _is_there(store, target):
            raise MlflowException(f"{info.name} has been deleted")

    def refuse(entry: Entry, why: str) -> None:
        refused.setdefault(entry[1], why)

    def send(batch: list[Entry], at_once: int = METRICS_PER_REQUEST) -> None:
        for start in range(0, len(batch), at_once):
            deliver(batch[start : start + at_once], post, check, refuse, refused)

    send([["param", key, value] for key, value in source.data.params.items()])
    send([["tag", key, value] for key, value in tags.items()])
    there_already = client.get_run(target).inputs
    if source.inputs and not (there_already and there_already.dataset_inputs):
        for each in source.inputs.dataset_inputs:
            store.log_dataset(target, DatasetInput(each.dataset, each.tags))
    for key in source.data.metrics:
        there = {(p.step, p.timestamp) for p in client.get_metric_history(target, key)} if begun else set()
        points = local.client.get_metric_history(info.id, key)
        send([["metric", key, p.value, p.timestamp, p.step] for p in points if (p.step, p.timestamp) not in there])
    paths = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
    send([["file", path] for path in paths], at_once=1)
    models.copy(local.client, info, client, store.get(target))
    client.set_terminated(target, info.status, int(info.ended * 1000) if info.ended else None)
    return refused
