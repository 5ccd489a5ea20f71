"""Signals: collected where they are wanted, left alone where whoever started the program has them ignored."""

import os
import signal

import pytest
import typer

from aelab.workflows.launching import _forward_signals
from aelab.workflows.signals import SIGNALS, Interrupted, run_status, signals


@pytest.fixture
def handlers():
    """The handlers of this process, as they were, afterwards."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("collecting", [signals, lambda: _forward_signals({})], ids=["one run", "a sweep"])
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_a_signal_that_is_ignored_at_the_start_stays_ignored(handlers, collecting, number):
    """As under nohup, or for SIGINT in the background of a script."""
    others = [each for each in SIGNALS if each != number]
    signal.signal(number, signal.SIG_IGN)
    with collecting() as caught:
        os.kill(os.getpid(), number)
        assert caught == [] and signal.getsignal(number) == signal.SIG_IGN
        os.kill(os.getpid(), others[0])
        assert caught == [others[0]], "the others are collected as ever"
    assert signal.getsignal(number) == signal.SIG_IGN


class Run:
    """What `run_status` needs of a run that is written."""

    name, id = "vae-1", "0123456789abcdef"
    resume_command = "aelab resume 01234567"

    def tags(self, tags):
        self.reason = tags["aelab.reason"]

    def close(self, status, hurry):
        self.status = status


@pytest.mark.parametrize(
    ("caught", "raised", "code", "says"),
    [
        ([signal.SIGINT], Interrupted(1234), 130, "vae-1 is saved at step 1,234. Continue it: aelab resume 01234567"),
        ([signal.SIGTERM], Interrupted(5), 143, "vae-1 is saved at step 5. Continue it: aelab resume 01234567"),
        (
            [signal.SIGINT],
            KeyboardInterrupt(),
            130,
            "vae-1 keeps what it saved last. Continue it: aelab resume 01234567",
        ),
    ],
    ids=["Ctrl-C", "SIGTERM", "Ctrl-C twice"],
)
def test_an_interruption_is_one_line_and_no_error(cli, monkeypatch, caught, raised, code, says):
    """It says what is kept, and what to type."""
    run = Run()

    def interrupted(*words, **options):
        with run_status(run, caught):
            raise raised

    monkeypatch.setattr("aelab.train", interrupted)
    answer = cli("train", "vae")
    assert (answer.code, answer.err, answer.out) == (code, f"Interrupted: {says}\n", "")
    assert run.status == "KILLED" and run.reason.startswith(f"stopped by {caught[0].name}")


@pytest.mark.parametrize(("raised", "said"), [(KeyboardInterrupt, "Interrupted.\n"), (typer.Abort, "\nInterrupted.\n")])
def test_an_interruption_without_a_run_says_so(cli, monkeypatch, raised, said):
    """At a question the line begins below it."""

    def interrupted(*words, **options):
        raise raised

    monkeypatch.setattr("aelab.train", interrupted)
    answer = cli("train", "vae")
    assert (answer.code, answer.err) == (130, said)
