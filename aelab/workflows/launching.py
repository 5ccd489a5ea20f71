"""Runs many trainings from one command: one after the other, or several at once, each in its own process."""

import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType

import torch

from aelab.data import Dataset
from aelab.errors import UserError, shown
from aelab.recipe_files import RecipeFile, in_a_line, recipe_error
from aelab.tracking import RunInfo, Store
from aelab.workflows.planning import Config, Plan, open_configured
from aelab.workflows.resuming import resume_run
from aelab.workflows.signals import SIGNALS, Stopped, handled_by
from aelab.workflows.starting import start_run

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A training to run: its configuration, its names, and where it is tracked."""

    config: Config
    recipe_file: RecipeFile
    label: str  # unique, for messages
    name: str  # of its run
    experiment: str | None
    parent: str  # id of the parent run


def run_all(jobs: Sequence[Job], at_once: int, store: Store, data: Dataset, data_dir: Path | None) -> list[str]:
    """Trains the jobs that are not done yet, `at_once` at a time. Returns why each job failed, or an empty string.

    A run that was stopped is resumed. Raises Stopped or UserError if a signal stops the whole.
    """
    missing = []
    for job in jobs:
        done = find(job, data, store)
        if done and done.status == "FINISHED":
            log.info(f"{done.name}  is done already ({job.label})")
        else:
            missing.append(job)
    if at_once > 1 and len(missing) > 1:
        failures = _in_processes(missing, at_once, store, data_dir)
    else:
        failures = {}
        for k, job in enumerate(missing, 1):
            log.info(f"{k} of {len(missing)}: {job.label}")
            failures[job.label] = _try(job, store, data, data_dir)
    for label, why in failures.items():
        if why:
            log.warning(UserError(*f"{label}: {why}".split("\n")))
    return [failures.get(job.label, "") for job in jobs]


def find(job: Job, data: Dataset, store: Store) -> RunInfo | None:
    """The newest run with this recipe source, these options and settings, and this data, of any status."""
    return store.newest(kind="run", identity=Plan(job.config, job.recipe_file, data).identity)


def _try(job: Job, store: Store, data: Dataset, data_dir: Path | None) -> str:
    """Trains one job. Returns why it failed, or an empty string."""
    try:
        before = find(job, data, store)
        if before:
            resume_run(before, store, data_dir=data_dir)
        else:
            planned = Plan(job.config, job.recipe_file, data)
            start_run(planned, store, experiment=job.experiment, name=job.name, parent=job.parent)
    except Stopped:
        raise
    except UserError as problem:
        return str(problem)
    except (Exception, SystemExit) as error:  # noqa: BLE001  # a recipe may raise anything; the other jobs continue
        return str(recipe_error(error) or UserError(in_a_line(error)))
    return ""


def _in_processes(jobs: Sequence[Job], at_once: int, store: Store, data_dir: Path | None) -> dict[str, str]:
    """Trains several jobs at a time, which share the cores. A signal is forwarded to them, so that each run is saved."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # now, as its first start unblocks signals
    threads = max(1, torch.get_num_threads() // at_once)
    waiting, failures = list(jobs), {}
    running: dict[str, tuple[BaseProcess, Connection]] = {}
    with _forward_signals(running) as caught:
        while running or (waiting and not caught):
            while waiting and len(running) < at_once and not caught:
                job = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_train_in_child, args=(job, store.uri, data_dir, threads, sender)
                )
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # in the child until its run can be saved
                process.start()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                sender.close()
                running[job.label] = (process, receiver)
                log.info(f"{job.label}  begins, {threads} thread{'s' * (threads > 1)}")
            wait([process.sentinel for process, _ in running.values()], timeout=1)
            for label in [label for label, (process, _) in running.items() if not process.is_alive()]:
                process, receiver = running.pop(label)
                try:
                    failures[label] = receiver.recv()
                except EOFError:
                    failures[label] = f"its process ended with code {process.exitcode}"
                if not failures[label]:
                    log.info(f"{label}  is done")
    if caught:
        problem = UserError("what was running is saved. Type the same command again to continue.")
        problem.code = 130 if caught[0] == signal.SIGINT else 143
        raise problem
    return failures


def _train_in_child(job: Job, uri: str, data_dir: Path | None, threads: int, answer: Connection) -> None:
    """The main function of a child process. It has its own process group, so that Ctrl-C reaches it through its parent only."""
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # even if the parent ignores it, as SIGTERM signals the parent's end
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    _log_to_stderr(job.label)
    try:
        store = Store(uri, warn=log.warning)
        why = _try(job, store, open_configured(job.config, data_dir), data_dir)
    except UserError as problem:  # also Stopped
        why = str(problem)
    with suppress(OSError):  # the parent is gone
        answer.send(why)


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
def _forward_signals(running: "dict[str, tuple[BaseProcess, Connection]]") -> Iterator[list[int]]:
    """Collects the signals that ask for an end, and forwards them to the running processes. Ignored signals stay ignored."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for process, _ in list(running.values()):
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    with handled_by(catch):
        yield caught
