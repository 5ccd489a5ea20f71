"""Signals: collected where they are wanted, left alone where whoever started the program has them ignored."""

import os
import signal

import pytest

from aelab.workflows.launching import _forward_signals
from aelab.workflows.signals import SIGNALS, signals


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
