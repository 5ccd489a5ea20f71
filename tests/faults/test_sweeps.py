"""A sweep that is stopped goes on with what is missing, also where its points are trained by processes of their own."""

import os
import signal
import subprocess
import sys
import time

import pytest

from aelab.tracking import Store

pytestmark = pytest.mark.faults
WORDS = ["compare-latent", "2", "3", "--recipe", "stacked", "--data", "digits", "--epochs", "40", "--jobs", "2", "-q"]


def sweep(*words):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AELAB_DATA": ""}
    return subprocess.Popen(
        [sys.executable, "-m", "aelab", *WORDS, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    )  # fmt: skip


def points():
    return [info for info in Store().runs() if info.tags["aelab.kind"] == "run"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_sweep_goes_on(number, here):
    process = sweep()
    end = time.monotonic() + 120
    while not (here / "mlflow.db").exists() or sum("step/loss" in info.metrics for info in points()) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.2)
    if number == signal.SIGKILL:
        os.killpg(process.pid, number)  # the parent alone; the points are in groups of their own and finish
    else:
        process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 143 if number == signal.SIGTERM else -number
    assert "Traceback" not in err
    end = time.monotonic() + 120
    while any(info.status == "RUNNING" for info in points()):
        assert time.monotonic() < end
        time.sleep(0.5)
    if number != signal.SIGKILL:
        assert {info.status for info in points()} == {"KILLED"} and "same command" in err
    before = {info.id for info in points()}
    again = sweep()
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    finished = points()
    assert [info.status for info in finished] == ["FINISHED"] * 2, "none twice, none missing"
    assert before <= {info.id for info in finished}, "the stopped ones went on"
    assert len([info for info in Store().runs() if info.tags["aelab.kind"] == "sweep"]) == 1
    assert sorted(info.params["latent_dim"] for info in finished) == ["2", "3"]
