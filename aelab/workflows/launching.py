"""Runs many trainings from one command: one after the other, or several at once, each in its own process."""

import hashlib
import logging
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import platformdirs
import torch
from filelock import FileLock, Timeout

from aelab.data import Dataset
from aelab.errors import UserError, shown
from aelab.recipe_files import RecipeFile, in_a_line, recipe_error
from aelab.tracking import HeldError, RunInfo, Store
from aelab.workflows.planning import Config, Plan, opener
from aelab.workflows.resuming import resume_run
from aelab.workflows.signals import SIGNALS, Pruned, Stopped, handled_by, signals
from aelab.workflows.starting import start_run

log = logging.getLogger(__name__)

RETRY = 1.0  # seconds between two looks at what another process does


@dataclass(frozen=True)
class Job:
    """A training to run: its configuration, its names, and where it is tracked. It can be sent to another process."""

    config: Config
    recipe_file: RecipeFile
    identity: str  # of its plan
    label: str  # unique, for messages
    name: str  # of its run
    experiment: str | None
    parent: str  # id of the parent run


WatchJob = Callable[[Job, int, Mapping[str, float]], bool]  # told the metrics of an epoch; True stops the job


def run_all(jobs: Sequence[Job], at_once: int, store: Store, data_dir: Path | None) -> list[str]:
    """Trains the jobs, `at_once` at a time. Returns why each job failed, or an empty string.

    A run that was stopped is resumed. Raises Stopped or UserError if a signal stops the whole.
    """
    failures: dict[str, str] = {}

    def ended(job: Job, why: str) -> None:
        failures[job.label] = why

    if at_once > 1 and len(jobs) > 1:
        run_in_processes(iter(jobs), at_once, store, data_dir, ended)
    else:
        run_here(iter(jobs), len(jobs), store, data_dir, ended)
    for label, why in failures.items():
        if why:
            log.warning(UserError(*f"{label}: {why}".split("\n")))
    return [failures.get(job.label, "") for job in jobs]


def run_here(
    jobs: Iterator[Job],
    count: int,
    store: Store,
    data_dir: Path | None,
    ended: Callable[[Job, str], None],
    watch: WatchJob | None = None,
) -> None:
    """Trains jobs in this process, one after the other, and calls `ended` after each: with why it failed, or an empty string.

    `watch` is told of each job's epochs, and may stop it.
    """
    opened = opener(data_dir)
    for k, job in enumerate(jobs, 1):
        log.info(f"{k} of {count}: {job.label}")
        try:
            why = train_job(job, store, opened, data_dir, partial(watch, job) if watch else None)
        except Stopped as stopped:
            stopped.args = (f"{stopped}; all of them: type the same command again",)
            raise
        ended(job, why)


def find(job: Job, store: Store) -> RunInfo | None:
    """The newest run with this recipe source, these options and settings, and this data: a finished one if there is one."""
    found = store.runs(f"tags.`aelab.kind` = 'run' and tags.`aelab.identity` = '{job.identity}'")
    finished = (info for info in found if info.status == "FINISHED")
    return next(finished, found[0] if found else None)


def train_job(
    job: Job,
    store: Store,
    opened: Callable[[Config], Dataset],
    data_dir: Path | None,
    watch: Callable[[int, Mapping[str, float]], bool] | None = None,
) -> str:
    """Trains one job, or resumes its stopped run. Returns why it failed, or an empty string."""
    with _alone(job, store):
        return _train_job(job, store, opened, data_dir, watch)


def _train_job(
    job: Job,
    store: Store,
    opened: Callable[[Config], Dataset],
    data_dir: Path | None,
    watch: Callable[[int, Mapping[str, float]], bool] | None,
) -> str:
    try:
        before = find(job, store)
        if before and before.status == "FINISHED":
            return ""
        if before:
            resume_run(before, store, data_dir=data_dir, watch=watch, recipe_file=job.recipe_file)
        else:
            planned = Plan(job.config, job.recipe_file, opened(job.config))
            if planned.identity != job.identity:
                return f"the data {job.config.data} of {platform.node()} are not those that the sweep was planned with."
            start_run(planned, store, experiment=job.experiment, name=job.name, parent=job.parent, watch=watch)
    except Stopped:
        raise
    except Pruned:
        return ""
    except UserError as problem:
        return str(problem)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a recipe may raise anything; the other jobs continue
        return str(recipe_error(error) or UserError(in_a_line(error)))
    return ""


@contextmanager
def _alone(job: Job, store: Store) -> Iterator[None]:
    """Lets one process of this machine at a time train a point: other sweeps may have it too, or one that was just killed.

    Raises UserError if a signal ends the waiting, or if the lock cannot be written.
    """
    lock = FileLock(point_lock(store, job.identity))

    def acquired() -> bool:
        with suppress(Timeout):
            lock.acquire(timeout=0)
        return lock.is_locked

    folder = Path(lock.lock_file).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _wait_until(acquired)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    try:
        wait_for_writer(job, store)
        yield
    finally:
        lock.release()


def wait_for_writer(job: Job, store: Store) -> None:
    """Waits while another process writes the run of a job. Raises UserError if a signal ends the waiting."""

    def free() -> bool:
        info = find(job, store)
        if info is None or info.status == "FINISHED":
            return True
        try:
            with store.held(info):
                return True
        except HeldError:
            return False
        except UserError:  # resuming it says what is wrong
            return True

    _wait_until(free)


def _wait_until(free: Callable[[], bool]) -> None:
    if free():
        return
    log.warning("another process trains this point: waiting for it")
    with signals() as caught:
        while not (caught or free()):
            time.sleep(RETRY)
    if caught:
        raise _stopped(caught[0])


def point_lock(store: Store, identity: str) -> Path:
    """The file that is locked while a point of sweeps, with this identity, is trained."""
    name = hashlib.sha256(f"{store.uri} {identity}".encode()).hexdigest()
    return Path(platformdirs.user_cache_dir("aelab")) / "locks" / f"{name}.lock"


def _stopped(number: int) -> UserError:
    """What a sweep says that a signal ended."""
    problem = UserError("what was running is saved. Type the same command again to continue.")
    problem.code = 130 if number == signal.SIGINT else 143
    return problem


def run_in_processes(
    jobs: Iterator[Job],
    at_once: int,
    store: Store,
    data_dir: Path | None,
    ended: Callable[[Job, str], None],
    watch: WatchJob | None = None,
) -> None:
    """Trains jobs in processes that share the cores, `at_once` at a time; see `run_here`.

    A signal is forwarded to them, so that each run is saved; then the whole raises UserError.
    """
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # now, as its first start unblocks signals
    threads = max(1, torch.get_num_threads() // at_once)
    running: dict[str, tuple[Job, BaseProcess, Connection]] = {}
    more = True
    with _forward_signals(running) as caught:
        while running or (more and not caught):
            while more and len(running) < at_once and not caught:
                job = next(jobs, None)
                if job is None:
                    more = False
                    break
                ours, theirs = context.Pipe()
                process: BaseProcess = context.Process(
                    target=_train_in_child,
                    args=(job, store.uri, store.offline, data_dir, threads, theirs, watch is not None),
                )
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # in the child until its run can be saved
                process.start()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                theirs.close()
                running[job.label] = (job, process, ours)
                log.info(f"{job.label}  begins, {threads} thread{'s' * (threads > 1)}")
            if not running:
                break
            wait([each for _, process, line in running.values() for each in (process.sentinel, line)], timeout=1)
            for label, (job, process, line) in list(running.items()):
                alive = process.is_alive()  # before its line is read, as it may end right after it has answered
                why = _answer(line, job, watch) if line.poll() else None
                if why is None and alive:
                    continue
                running.pop(label)
                process.join()
                why = f"its process ended with code {process.exitcode}" if why is None else why
                ended(job, why)
                if not why:
                    log.info(f"{label}  is done")
    if caught:
        raise _stopped(caught[0])


def _answer(line: Connection, job: Job, watch: WatchJob | None) -> str | None:
    """Reads what a child says: how it ended, or, answered at once, the metrics of an epoch. None if it has not ended."""
    try:
        said = line.recv()
        if isinstance(said, str):
            return said
        line.send(bool(watch and watch(job, *said)))
    except (EOFError, OSError):  # the process is gone
        pass
    return None


def _train_in_child(
    job: Job, uri: str, offline: bool, data_dir: Path | None, threads: int, line: Connection, watched: bool
) -> None:
    """The main function of a child process. It has its own process group, so that Ctrl-C reaches it through its parent only."""
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # even if the parent ignores it, as SIGTERM signals the parent's end
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _log_to_stderr(job.label)

    def ask(epoch: int, metrics: Mapping[str, float]) -> bool:
        try:
            line.send((epoch, dict(metrics)))
            return bool(line.recv())
        except (EOFError, OSError):  # the parent is gone, and a signal comes
            return False

    try:
        store = Store(uri, warn=log.warning)
        store.offline = offline  # whose address is a file like any other
        why = train_job(job, store, opener(data_dir), data_dir, ask if watched else None)
    except UserError as problem:  # also Stopped
        why = str(problem)
    with suppress(OSError):  # the parent is gone
        line.send(why)


def _log_to_stderr(label: str) -> None:
    """Prints the warnings of this process to stderr, each with the label of its job."""

    class Labelled(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return f"warning: {label}: {shown(record)}"

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Labelled())
    handler.setLevel(logging.WARNING)
    logger = logging.getLogger("aelab")
    logger.addHandler(handler)
    logger.propagate = False


def _end_with_parent() -> None:
    """Waits for the end of the parent process, then tells this process to save its run and stop.

    The end of the parent, for whatever reason, closes a pipe, so it cannot be missed.
    """
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _forward_signals(running: "dict[str, tuple[Job, BaseProcess, Connection]]") -> Iterator[list[int]]:
    """Collects the signals that ask for an end, and forwards them to the running processes. Ignored signals stay ignored."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for _, process, _ in list(running.values()):
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    with handled_by(catch):
        yield caught
