"""What a store has not had yet: spools that an outage left, and runs that were trained offline."""

from collections.abc import Callable, Mapping

from mlflow.entities import DatasetInput, Metric, Param, RunTag

from aelab.problem import Problem
from aelab.tracking.info import RunInfo, cache_folder, local_path
from aelab.tracking.owner import hold
from aelab.tracking.run import MOST_METRICS, Run
from aelab.tracking.store import Store


def replay(store: Store, note: Callable[[str], None]) -> int:
    """Sends the spools of the store's runs that no process is writing; what the store has already is left out.

    Returns how many runs were sent. Raises Problem, after all have been tried, if one was not taken.
    """
    sent, failed = 0, []
    store.mark_dead()
    for info in store.runs():
        folder = local_path(info.artifacts) or cache_folder(info.id)
        for spool in sorted(folder.glob("unsent*.jsonl")):
            training = spool.name == "unsent.jsonl"
            try:
                with hold(folder, info.name, info.tags.get("aelab.process", "")):
                    run = Run(store.client, info, training, again=True, spool=spool, ended=True)
                    run.close()
            except Problem as problem:
                failed.append(f"{info.name}: {problem}")
            else:
                sent += 1
                note(f"{info.name}  sent what was kept in {spool.name}")
    if failed:
        raise Problem(f"{len(failed)} runs were not sent.", *failed[:2])
    return sent


def push(local: Store, store: Store, note: Callable[[str], None]) -> int:
    """Copies the runs that were trained offline to another store, and what is new of those copied before.

    A run keeps its name, times, figures, tags and files, and gets a new id. Returns how many were sent.
    """
    copies: dict[str, str] = {}
    waiting = [info for info in local.runs() if info.tags.get("aelab.offline")]
    waiting.sort(key=lambda info: (info.parent is not None, info.started))  # parents first
    sent = 0
    for info in waiting:
        if info.tags["aelab.offline"] != "yes":
            copies[info.id] = info.tags["aelab.offline"].split()[-1]
        elif info.status != "RUNNING":
            copies[info.id] = _copy(local, store, info, copies)
            local.client.log_batch(info.id, tags=[RunTag("aelab.offline", f"sent {copies[info.id]}")])
            note(f"{info.name}  sent as {copies[info.id][:8]}")
            sent += 1
    return sent


def _copy(local: Store, store: Store, info: RunInfo, copies: Mapping[str, str]) -> str:
    """One run copied, or its copy completed. Returns the id of the copy."""
    client, source = store.client, local.client.get_run(info.id)
    own = {"aelab.offline", "mlflow.parentRunId"}
    tags = {key: value for key, value in info.tags.items() if key not in own} | {"aelab.offline_id": info.id}
    if info.parent and info.parent in copies:
        tags["mlflow.parentRunId"] = copies[info.parent]
    with store.asking():
        before = store.newest(offline_id=info.id)
        if before:
            target = before.id
        else:
            name = local.client.get_experiment(info.experiment_id).name
            created = client.create_run(
                store.experiment(name), start_time=int(info.started * 1000), run_name=info.name, tags=tags
            )
            target = created.info.run_id
        client.log_batch(target, params=[Param(key, value) for key, value in source.data.params.items()],
                         tags=[RunTag(key, value) for key, value in tags.items()])  # fmt: skip
        if not before and source.inputs:
            client.log_inputs(target, [DatasetInput(each.dataset, each.tags) for each in source.inputs.dataset_inputs])
        for key in info.metrics:
            there = {(p.step, p.timestamp) for p in client.get_metric_history(target, key)} if before else set()
            points = local.client.get_metric_history(info.id, key)
            new = [Metric(key, p.value, p.timestamp, p.step) for p in points if (p.step, p.timestamp) not in there]
            for start in range(0, len(new), MOST_METRICS):
                client.log_batch(target, metrics=new[start : start + MOST_METRICS])
        client.log_artifacts(target, str(local.folder(info)))
        client.set_terminated(target, info.status, int(info.ended * 1000) if info.ended else None)
    return target
