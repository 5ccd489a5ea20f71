"""How a run ends: finished, failed or killed, whichever is true, and what is said then."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from aelab.console import Screen
from aelab.errors import UserError, no_memory, out_of_memory
from aelab.tracking import RunWriter, Status
from aelab.training.trainer import Interrupted

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


@contextmanager
def run_status(run: RunWriter, screen: Screen, caught: "list[signal.Signals]") -> Iterator[None]:
    """Closes a run as FINISHED, FAILED or KILLED, whichever is true of the block, and with the reason."""

    def hurry() -> bool:
        return bool(caught)

    def close(status: Status, reason: str) -> None:
        run.tags({"aelab.reason": reason[:1000]})
        try:
            run.close(status, hurry)
        except UserError as problem:
            screen.warn(*str(problem).split("\n"))

    try:
        yield
    except Interrupted as interrupted:
        close("KILLED", f"stopped by {caught[0].name}")
        raise Stopped(caught[0], run, interrupted.step) from None
    except KeyboardInterrupt:
        close("KILLED", "stopped by SIGINT, twice")
        raise
    except BaseException as error:
        close("FAILED", "out of memory" if out_of_memory(error) else str(error) or type(error).__name__)
        if out_of_memory(error):
            raise no_memory() from error
        raise
    run.close("FINISHED", hurry)


class Stopped(UserError):
    """A run that was stopped by a signal and can be resumed; exits with 130 for Ctrl-C, else 143."""

    def __init__(self, number: signal.Signals, run: RunWriter, step: int) -> None:
        super().__init__(f"{run.name} stopped at step {step:,}; it is saved.", f"Go on with: aelab resume {run.id[:8]}")
        self.code = 130 if number == signal.SIGINT else 143


@contextmanager
def signals() -> Iterator[list[signal.Signals]]:
    """Collects Ctrl-C, SIGTERM and SIGHUP instead of dying of them; a second Ctrl-C ends at once.

    One that is ignored already, as SIGHUP is under nohup, stays ignored.
    """
    caught: list[signal.Signals] = []

    def catch(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        caught.append(signal.Signals(number))

    with handled_by(catch):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a process of a sweep is born with them blocked
        yield caught


@contextmanager
def handled_by(catch: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Has SIGNALS call `catch` while the block lasts, but for those that are ignored."""
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, catch)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
