"""Many trainings from one command: one after the other, or several at once, each in a process of its own."""

import multiprocessing
import os
import signal
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

from aelab import recipe_files
from aelab.console import Screen
from aelab.data import Dataset
from aelab.errors import UserError
from aelab.tracking import RunInfo, Store
from aelab.workflows.config import Config
from aelab.workflows.resume import resume
from aelab.workflows.signals import SIGNALS, Stopped, handled_by
from aelab.workflows.train import identity, open_config_data, start


@dataclass(frozen=True)
class Job:
    """A training that is wanted: what determines it, what it is called, and where it is tracked."""

    config: Config
    label: str  # for people, one of a kind
    name: str  # of its run
    experiment: str | None
    parent: str  # id of the run that it belongs to


def run(
    orders: Sequence[Job], jobs: int, store: Store, screen: Screen, data: Dataset, data_dir: Path | None
) -> list[str]:
    """Trains what is not there already, `jobs` at a time. Returns for each order nothing, or why it failed.

    A run that was stopped is resumed. Raises Stopped or UserError when the whole is stopped by a signal.
    """
    missing = []
    for order in orders:
        done = find(order.config, store, data)
        if done and done.status == "FINISHED":
            screen.note(f"{done.name}  is done already ({order.label})")
        else:
            missing.append(order)
    if jobs > 1 and len(missing) > 1:
        failures = _at_once(missing, jobs, store, screen, data_dir)
    else:
        failures = {order.label: _try(order, store, screen, data, data_dir) for order in missing}
    for label, why in failures.items():
        if why:
            screen.warn(*f"{label}: {why}".split("\n"))
    return [failures.get(order.label, "") for order in orders]


def find(config: Config, store: Store, data: Dataset) -> RunInfo | None:
    """The newest run with this recipe source, options, settings and data, whatever became of it."""
    return store.newest(kind="run", identity=identity(config, recipe_files.find(config.recipe), data))


def _try(order: Job, store: Store, screen: Screen, data: Dataset, data_dir: Path | None) -> str:
    """Trains one; returns why it failed, or nothing."""
    try:
        before = find(order.config, store, data)
        if before:
            resume(before, store, screen, data_dir)
        else:
            start(
                order.config,
                store,
                screen,
                data=data,
                experiment=order.experiment,
                name=order.name,
                parent=order.parent,
            )
    except Stopped:
        raise
    except UserError as problem:
        return str(problem)
    except Exception as error:  # noqa: BLE001  # a recipe may raise anything; the others go on
        return f"{type(error).__name__}: {error}"
    return ""


def _at_once(orders: Sequence[Job], jobs: int, store: Store, screen: Screen, data_dir: Path | None) -> dict[str, str]:
    """Trains several at a time, the cores shared between them. A signal is passed on: each run is saved."""
    context = multiprocessing.get_context("spawn")
    resource_tracker.ensure_running()  # its first start would let signals through again
    threads = max(1, torch.get_num_threads() // jobs)
    waiting, failures = list(orders), {}
    running: dict[str, tuple[BaseProcess, Connection]] = {}
    with _forward_signals(running) as caught:
        while running or (waiting and not caught):
            while waiting and len(running) < jobs and not caught:
                order = waiting.pop(0)
                receiver, sender = context.Pipe(duplex=False)
                process: BaseProcess = context.Process(
                    target=_train_in_child, args=(order, store.uri, data_dir, threads, sender)
                )
                mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until its training can save itself
                process.start()
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)
                sender.close()
                running[order.label] = (process, receiver)
                screen.note(f"{order.label}  begins, {threads} thread{'s' * (threads > 1)}")
            wait([process.sentinel for process, _ in running.values()], timeout=1)
            for label in [label for label, (process, _) in running.items() if not process.is_alive()]:
                process, receiver = running.pop(label)
                try:
                    failures[label] = receiver.recv()
                except EOFError:
                    failures[label] = f"its process ended with code {process.exitcode}"
                if not failures[label]:
                    screen.note(f"{label}  is done")
    if caught:
        problem = UserError("stopped; what was running is saved.", "Go on by typing the same command again.")
        problem.code = 130 if caught[0] == signal.SIGINT else 143
        raise problem
    return failures


def _train_in_child(order: Job, uri: str, data_dir: Path | None, threads: int, answer: Connection) -> None:
    """What a process of its own does. It has its own group, so that Ctrl-C reaches it once, through its parent."""
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # also where the parent ignores it: the end of that is told by it
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    screen = Screen(quiet=True, about=order.label)
    try:
        store = Store(uri, warn=screen.warn)
        data = open_config_data(order.config, data_dir, screen)
        why = _try(order, store, screen, data, data_dir)
    except UserError as problem:  # also Stopped
        why = str(problem)
    with suppress(OSError):  # the parent is gone
        answer.send(why)


def _end_with_parent() -> None:
    """Waits for the parent to end, however it does, and then tells this process to save its run and stop.

    The parent's end closes a pipe, so there is no moment in which it could be missed.
    """
    if parent := multiprocessing.parent_process():
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextmanager
def _forward_signals(running: "dict[str, tuple[BaseProcess, Connection]]") -> Iterator[list[int]]:
    """Collects Ctrl-C, SIGTERM and SIGHUP and passes them on to the processes that run; what is ignored stays ignored."""
    caught: list[int] = []

    def catch(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        for process, _ in list(running.values()):
            if process.pid and process.is_alive():
                os.kill(process.pid, number)

    with handled_by(catch):
        yield caught
