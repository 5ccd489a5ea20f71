"""Trains the points of a sweep as tasks of a Ray cluster.

A task is `launching.train_job` on some machine of the cluster. Ray says when a machine, or a task's process, is lost; the point
then begins again on another one, from the last checkpoint that the store has. Whether Ray answers is asked in a process of
its own, which can be ended: `ray.init` waits for two minutes where nothing answers, and no signal ends that.
"""

import importlib.util
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import torch

from aelab.data import NAMES
from aelab.errors import UserError, shown
from aelab.recipe_files import in_a_line
from aelab.tracking import Store
from aelab.workflows.launching import Job, find, train_job
from aelab.workflows.planning import opener
from aelab.workflows.signals import handled_by

log = logging.getLogger(__name__)

ANSWER_SECONDS = 5.0  # to wait for the address
CONNECT_SECONDS = 60.0  # to wait for the cluster behind it; importing Ray takes most of them on a busy machine
SAVE_SECONDS = 60.0  # to wait until stopped runs are saved
LOST_SECONDS = 30.0  # to wait for the end of a process on this machine that Ray calls lost
LOSSES = 3  # of a point's process, after which the point has failed
QUIET = {  # Ray's words are not for the user's screen, and it sends nothing home
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
}
ASK = """
import json, logging, sys, ray
ray.init(sys.argv[1], logging_level=logging.CRITICAL, log_to_driver=False)
alive = [node for node in ray.nodes() if node["Alive"]]
facts = [[node["NodeManagerHostname"], node["Resources"].get("CPU", 0), node["Resources"].get("GPU", 0)] for node in alive]
print("nodes", json.dumps(facts))
"""


@dataclass(frozen=True)
class Share:
    """What a point takes of a machine while it is trained; Ray counts, it does not enforce."""

    cpus: float = 1.0
    gpus: float = 0.0

    @property
    def threads(self) -> int:
        return max(1, int(self.cpus))


def share(options: Mapping[str, str | float]) -> Share:
    """The share that is typed as cpus=N,gpus=N. Raises UserError for anything else."""
    known = {"cpus", "gpus"}
    if unknown := options.keys() - known:
        raise UserError(f"--ray {min(unknown)}: a point has cpus and gpus, such as --ray gpus=0.25,cpus=1.", code=2)
    numbers = {}
    for name, value in options.items():
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        whole = number == int(number) if 0 <= number < 1e6 else False
        if not (0 < number < 1 or whole) or (name == "cpus" and not number):
            raise UserError(f"--ray {name}={value}: write a whole number, or a part of one such as 0.25.", code=2)
        numbers[name] = number
    return Share(**numbers)


def check(address: str | None, options: Mapping[str, str | float]) -> None:
    """Raises UserError if no cluster answers at the address, or if no machine of it has what a point takes."""
    wanted = share(options)
    if not _is_installed():
        raise UserError("--launcher ray: Ray is not installed.", "Install it: pip install 'aelab[ray]'", code=2)
    nodes = _nodes(address)
    if not any(cpus >= wanted.cpus and gpus >= wanted.gpus for _, cpus, gpus in nodes):
        has = ", ".join(f"{host} has {cpus:g} CPUs and {gpus:g} GPUs" for host, cpus, gpus in nodes[:3])
        raise UserError(
            f"--ray cpus={wanted.cpus:g},gpus={wanted.gpus:g}: no machine of the cluster has as many.",
            f"{has}.",
            code=2,
        )


def _is_installed() -> bool:
    return importlib.util.find_spec("ray") is not None


def _nodes(address: str | None) -> list[tuple[str, float, float]]:
    """Host, CPUs and GPUs of each machine of a cluster. Raises UserError if none answers."""
    if address and address != "auto":
        _reach(address)
    words = [sys.executable, "-P", "-c", ASK, address or "auto"]
    with tempfile.TemporaryDirectory() as empty:  # Ray would have its tasks import modules from the working folder
        asking = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=empty, env={**os.environ, **QUIET}
        )
        with asking as process:
            try:
                try:
                    out, err = process.communicate(timeout=ANSWER_SECONDS)
                except subprocess.TimeoutExpired:
                    log.info("still waiting for the Ray cluster; Ctrl-C ends it.")
                    out, err = process.communicate(timeout=CONNECT_SECONDS)
            except subprocess.TimeoutExpired:
                within = f"within {CONNECT_SECONDS:.0f} seconds, or this machine is not one of it"
                raise _no_cluster(address, within) from None
            finally:
                process.kill()
    for line in out.splitlines():
        if line.startswith("nodes "):
            return [(host, cpus, gpus) for host, cpus, gpus in json.loads(line.removeprefix("nodes "))]
    said = [line for line in err.splitlines() if line[:1].isalpha() and ":" in line]
    raise _no_cluster(address, f"({said[-1][:300]})" if said and address else "")


def _reach(address: str) -> None:
    """Raises UserError if nothing listens at HOST:PORT."""
    if "://" in address:
        raise UserError(
            f"--ray-address {address}: type the command on a machine of the cluster, and the address as HOST:PORT.",
            code=2,
        )
    host, colon, port = address.rpartition(":")
    if not (colon and host and port.isdigit() and int(port) < 65536):
        raise UserError(f"--ray-address {address}: write HOST:PORT, such as 10.0.0.1:6379.", code=2)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS).close()
    except (OSError, UnicodeError) as error:
        raise _no_cluster(address, f"({getattr(error, 'strerror', None) or error})") from error


def _no_cluster(address: str | None, why: str) -> UserError:
    if address and address != "auto":
        return UserError(f"no Ray cluster answers at {address} {why}".rstrip() + ".", code=2)
    return UserError(
        f"no Ray cluster answers on this machine {why}".rstrip() + ".",
        "Start one: ray start --head; or name another one: --ray-address HOST:PORT",
        code=2,
    )


def run_all(
    jobs: Sequence[Job],
    at_once: int | None,
    store: Store,
    data_dir: Path | None,
    address: str | None,
    options: Mapping[str, str | float],
) -> list[str]:
    """Trains the jobs, and returns why each failed, or an empty string; see `launching.run_all`.

    `at_once` of them at most; None means as many as the cluster has room for. A signal stops the tasks, so that each run is
    saved; then the whole raises UserError.
    """
    if not jobs:
        return []
    wanted = share(options)
    failures: dict[str, str] = {}
    with _connected(address) as ray, _caught() as caught:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        _announce(len(jobs), nodes, store)
        _mark_dead(ray, nodes, jobs, store)
        where = _absolute(store), store.offline, _absolute_folder(data_dir)
        task = ray.remote(_train).options(num_cpus=wanted.cpus, num_gpus=wanted.gpus, max_retries=0, name="aelab")
        waiting, losses = deque(jobs), Counter[str]()
        running: dict[Any, Job] = {}  # by what Ray calls a reference to their result
        told = 0  # of the signals
        while running or (waiting and not caught):
            while waiting and len(running) < (at_once or len(jobs)) and not caught:
                job = waiting.popleft()
                running[task.remote(_movable(job), *where, wanted.threads)] = job
            for ended in ray.wait(list(running), timeout=1)[0]:
                job = running.pop(ended)
                why = _result(ray, ended, job)
                if why is None and not caught:
                    losses[job.label] += 1
                    if losses[job.label] < LOSSES:
                        log.warning(f"{job.label}: its process is lost; it goes on in another one.")
                        if (info := find(job, store)) and info.status == "RUNNING":
                            store.mark_lost(info, "killed, out of memory, or its machine went down", LOST_SECONDS)
                        waiting.append(job)
                        continue
                    why = f"its process was lost {LOSSES} times: killed, out of memory, or its machine went down"
                failures[job.label] = why or ""
                if not why:
                    log.info(f"{job.label}  is done")
            if len(caught) > told:
                told = len(caught)
                for each in running:
                    ray.cancel(each)
            if len(caught) > 2:  # a third Ctrl-C: what is not saved yet goes on from its last checkpoint
                break
    if caught:
        problem = UserError("what was running is saved. Type the same command again to continue.")
        problem.code = 130 if caught[0] == signal.SIGINT else 143
        raise problem
    for label, why in failures.items():
        if why:
            log.warning(UserError(*f"{label}: {why}".split("\n")))
    return [failures.get(job.label, "") for job in jobs]


@contextmanager
def _connected(address: str | None) -> Iterator[ModuleType]:
    """Ray, connected to the cluster. What it prints meanwhile is dropped, for it would be on stdout."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    with redirect_stdout(io.StringIO()):
        import ray

        mine = not ray.is_initialized()
        try:
            if mine:
                with tempfile.TemporaryDirectory() as empty, chdir(empty):
                    ray.init(address or "auto", logging_level=logging.CRITICAL, log_to_driver=False)
            yield ray
        except (ray.exceptions.RaySystemError, ConnectionError) as error:
            raise UserError(
                f"the Ray cluster does not answer any more: {in_a_line(error)}",
                "Type the same command again to continue.",
            ) from error
        finally:
            if mine:
                ray.shutdown()


@contextmanager
def _caught() -> Iterator[list[int]]:
    """Collects the signals that ask for an end. Ignored signals stay ignored."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    with handled_by(catch):
        yield caught


def _announce(count: int, nodes: Sequence[Mapping[str, Any]], store: Store) -> None:
    """Says how large the cluster is. Warns if the runs of several machines are tracked in a file."""
    hosts = {node["NodeManagerHostname"] for node in nodes}
    has = {kind: sum(node["Resources"].get(kind, 0) for node in nodes) for kind in ("CPU", "GPU")}
    log.info(
        f"{count} point{'s' * (count > 1)} for a cluster of {len(hosts)} machine{'s' * (len(hosts) > 1)}, "
        f"{has['CPU']:g} CPUs, {has['GPU']:g} GPUs"
    )
    if store.database and len(hosts) > 1:
        log.warning(
            f"the cluster has {len(hosts)} machines, and the store is a file: each must see it at the same path, and SQLite may "
            "fail on a network disk. A server is safe: --tracking-uri http://HOST:PORT"
        )


def _absolute(store: Store) -> str:
    """The address of a store from any working folder."""
    return f"sqlite:///{store.database.absolute()}" if store.database else store.uri


def _absolute_folder(data_dir: Path | None) -> Path | None:
    named = data_dir or (Path(os.environ["AELAB_DATA"]) if os.environ.get("AELAB_DATA") else None)
    return named.absolute() if named else None


def _movable(job: Job) -> Job:
    """The job as another working folder and environment understand it."""
    config = job.config
    if config.data not in NAMES:  # a folder
        config = replace(config, data=str(Path(config.data).absolute()))
    return replace(job, config=config, experiment=job.experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or None)


def _mark_dead(ray: Any, nodes: Sequence[Mapping[str, Any]], jobs: Sequence[Job], store: Store) -> None:
    """Has each machine mark as failed what died on it, if an earlier command left runs that seem to be running."""
    mine = {job.identity for job in jobs}
    left = store.runs(f"attributes.status = 'RUNNING' and tags.mlflow.parentRunId = '{jobs[0].parent}'")
    hosts = {
        info.tags.get("aelab.process", "").partition(" ")[0] for info in left if info.tags.get("aelab.identity") in mine
    }
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = [
        ray.remote(_mark_dead_here)
        .options(num_cpus=0, max_retries=0, scheduling_strategy=strategy(node["NodeID"], soft=False))
        .remote(_absolute(store))
        for node in nodes
        if node["NodeManagerHostname"] in hosts
    ]
    ray.wait(asked, num_returns=len(asked), timeout=SAVE_SECONDS) if asked else None


def _mark_dead_here(uri: str) -> None:
    """A task of a machine; see `_mark_dead`."""
    Store(uri).mark_dead()


def _train(job: Job, uri: str, offline: bool, data_dir: Path | None, threads: int) -> tuple[str, list[str]]:
    """The task: trains a job. Returns why it failed, or an empty string, and its warnings."""
    torch.set_num_threads(threads)
    with _warnings() as said:
        try:
            store = Store(uri, warn=log.warning)
            store.offline = offline
            return train_job(job, store, opener(data_dir), data_dir), said
        except UserError as problem:  # also Stopped
            return str(problem), said


@contextmanager
def _warnings() -> Iterator[list[str]]:
    """Collects what is logged as a warning."""
    said: list[str] = []

    class Collected(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(shown(record))

    handler, logger = Collected(logging.WARNING), logging.getLogger("aelab")
    logger.addHandler(handler)
    try:
        yield said
    finally:
        logger.removeHandler(handler)


def _result(ray: Any, ended: Any, job: Job) -> str | None:
    """Why a task failed, or an empty string. None if its process or its machine is lost."""
    try:
        why, said = ray.get(ended)
    except ray.exceptions.TaskCancelledError:
        return "it was stopped before it began"
    except ray.exceptions.RayTaskError as error:
        return f"{in_a_line(error.cause or error)}. Is aelab of the same version on every machine of the cluster?"
    except ray.exceptions.RayError:
        return None
    for each in said:
        log.warning(f"{job.label}: {each}")
    return str(why)
