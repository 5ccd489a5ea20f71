"""How a run ends: as finished, failed or killed, also when a signal stops it."""

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from aelab.errors import UserError, no_memory, out_of_memory
from aelab.recipe_files import recipe_error
from aelab.tracking import RunWriter, Status
from aelab.training import PeerLostError

log = logging.getLogger(__name__)

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1]


class Interrupted(Exception):
    """The training was asked to stop, and stopped at `step`; its state is saved."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped at step {step}")
        self.step = step


class Pruned(Exception):
    """A search stopped the training after an epoch, as it is worse than others were then; its state is saved."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"pruned after epoch {epoch}: worse than the median of the other trials")


class Stopped(UserError):
    """A signal stopped a run, which can be resumed. The exit code is 130 for Ctrl-C, else 143."""

    def __init__(self, number: signal.Signals, run: RunWriter, step: int) -> None:
        super().__init__(f"{run.name} is saved at step {step:,}. {_how_to_continue(run)}")
        self.number = number
        self.code = 130 if number == signal.SIGINT else 143


def _how_to_continue(run: RunWriter) -> str:
    return f"Continue it: {run.resume_command}"


@contextmanager
def run_status(run: RunWriter, caught: "list[signal.Signals]") -> Iterator[None]:
    """Closes a run with the status that is true of the block, FINISHED, FAILED or KILLED, and with the reason."""

    def hurry() -> bool:
        return bool(caught)

    def close(status: Status, reason: str) -> None:
        run.tags({"aelab.reason": reason[:1000]})
        try:
            run.close(status, hurry)
        except UserError as problem:
            log.warning(problem)

    try:
        yield
    except Interrupted as interrupted:
        close("KILLED", f"stopped by {caught[0].name}")
        raise Stopped(caught[0], run, interrupted.step) from None
    except Pruned as pruned:
        close("KILLED", str(pruned))
        raise
    except KeyboardInterrupt:
        close("KILLED", "stopped by SIGINT, twice")
        raise KeyboardInterrupt(f"{run.name} keeps what it saved last. {_how_to_continue(run)}") from None
    except PeerLostError as lost:
        close("KILLED", str(lost))
        raise UserError(f"{lost} {_how_to_continue(run)}") from lost
    except BaseException as error:
        close("FAILED", "out of memory" if out_of_memory(error) else str(recipe_error(error) or error) or repr(error))
        if out_of_memory(error):
            raise no_memory() from error
        raise
    run.close("FINISHED", hurry)


@contextmanager
def signals() -> Iterator[list[signal.Signals]]:
    """Collects the signals in SIGNALS instead of ending the process; a second Ctrl-C ends it at once.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored. Outside of the main thread Python allows no signal
    handlers, and nothing is collected.
    """
    caught: list[signal.Signals] = []

    def catch(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            raise KeyboardInterrupt
        caught.append(signal.Signals(number))

    with handled_by(catch):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # a process of a sweep starts with them blocked
        yield caught


@contextmanager
def handled_by(catch: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handles the signals in SIGNALS with `catch` during the block, except those that are ignored."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: handler for number in SIGNALS if (handler := signal.getsignal(number)) != signal.SIG_IGN}
    for number in before:
        signal.signal(number, catch)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
