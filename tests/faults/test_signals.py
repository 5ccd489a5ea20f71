"""Told to stop: the step is finished and saved, the run is KILLED, and it is over in seconds."""

import signal
import subprocess
import sys
import time

import pytest
from machinery import DIGITS, run_folder, until

from aelab.tracking import Store
from aelab.training import checkpoint

LONG = ("train", "linear", *DIGITS, "--epochs", 100_000, "--name", "cut")
STUCK = """
real = aelab.training.trainer.Trainer.step
def stuck(self, *arguments):
    skipped = real(self, *arguments)
    if self.progress.step == 30:
        open('stuck', 'w').close()
        time.sleep(600)
    return skipped
aelab.training.trainer.Trainer.step = stuck
"""


def drawn(here):
    return lambda: list(here.glob("mlruns/*/*/artifacts/images/*step?0?*.webp"))


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 143), (signal.SIGUSR1, 143), (signal.SIGINT, 130)],
    ids=lambda v: getattr(v, "name", None),
)
def test_a_signal_ends_a_run_well(aelab, here, tally, number, code):
    process = aelab.start(*LONG)
    until(drawn(here), process=process)
    time.sleep(0.5)
    begun = time.monotonic()
    process.kill(number)
    assert process.wait() == code
    assert time.monotonic() - begun < 10
    info = Store().find("cut")
    assert info.status == "KILLED" and info.tags["aelab.reason"] == f"stopped by {number.name}"
    assert f"aelab resume {info.id[:8]}" in process.err
    step = checkpoint.newest(run_folder("cut") / "checkpoints", "last", pytest.fail).manifest["step"]
    assert f"Interrupted: cut is saved at step {step:,}. Continue it: aelab resume {info.id[:8]}" in process.err
    assert "error" not in process.err
    tally(f"{number.name}")


def test_an_ignored_signal_stays_ignored(aelab, here, tally):
    """SIGHUP under nohup, SIGINT in the background of a script; what is not ignored ends the run as ever."""
    ignored = (signal.SIGHUP, signal.SIGINT)
    patch = "".join(f"signal.signal({int(number)}, signal.SIG_IGN)\n" for number in ignored)
    process = aelab.start(*LONG, patch=patch + "aelab.training.saving.SAVE_SECONDS = 0.1")
    saved = lambda: {path.name for path in here.glob("mlruns/*/*/artifacts/checkpoints/last-*")}  # noqa: E731
    until(saved, process=process)
    for number in ignored:
        process.kill(number)
    before = saved()
    until(lambda: saved() and not saved() & before, process=process)
    process.kill(signal.SIGTERM)
    assert process.wait() == 143
    assert Store().find("cut").tags["aelab.reason"] == "stopped by SIGTERM"
    tally("SIGHUP and SIGINT that are ignored", 2)


def test_ctrl_c_twice_ends_at_once_and_nothing_is_corrupt(aelab, here, tally):
    process = aelab.start(*LONG, patch="aelab.training.saving.SAVE_SECONDS = 0" + STUCK)
    until((here / "stuck").exists, process=process)
    process.kill(signal.SIGINT)
    time.sleep(0.5)
    begun = time.monotonic()
    process.kill(signal.SIGINT)
    assert process.wait(60) == 130
    assert time.monotonic() - begun < 10
    assert "Traceback" not in process.err
    info = Store().find("cut")
    assert info.status == "KILLED"
    assert f"Interrupted: cut keeps what it saved last. Continue it: aelab resume {info.id[:8]}" in process.err
    assert checkpoint.newest(run_folder("cut") / "checkpoints", "last", pytest.fail)
    tally("Ctrl-C twice")


@pytest.mark.parametrize("wait", [0.0, 0.3, 0.6, 1.0])
def test_a_signal_while_it_starts(aelab, wait):
    """Before there is a run there is nothing to save; afterwards it is closed."""
    process = aelab.start("train", "linear", *DIGITS, "--epochs", 100_000, "--name", "cut")
    time.sleep(wait)
    process.kill(signal.SIGTERM)
    assert process.wait() in (143, -signal.SIGTERM)
    Store().mark_dead()
    assert {info.status for info in Store().runs()} <= {"KILLED", "FAILED"}


@pytest.mark.parametrize("after", [0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.0])
def test_ctrl_c_before_there_is_a_run_ends_it_in_a_line(here, tally, after):
    """Also in the middle of an import, where an exception would go through torch's C++."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "aelab", *map(str, LONG)], stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr
    assert any("aelab" in line for line in process.stderr), "Python itself has begun"
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=20)[1]
    assert process.returncode == 130 and "Traceback" not in err, err
    assert "Interrupted." in err or "Interrupted: cut" in err, "a run may just have begun"
    tally("Ctrl-C before there is a run")
