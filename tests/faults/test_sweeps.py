"""A sweep that is stopped goes on with what is missing, also where its points are trained by processes of their own."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from machinery import until

import aelab
from aelab.tracking import Store
from aelab.training import checkpoint
from aelab.workflows import launching

pytestmark = pytest.mark.faults
GRID = [
    *("sweep", "linear", "latent_dim=2,3,4", "lr=0.01,0.1", "--seeds", "4", "--data", "digits", "--epochs", "40"),
    *("--max-steps", "400", "--jobs", "2", "-q"),
]  # 24 points
WORDS = ["compare-latent", "2", "3", "--recipe", "stacked", "--data", "digits", "--epochs", "400", "--jobs", "2", "-q"]


def sweep(*before, words=WORDS):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "AELAB_DATA": ""}
    return subprocess.Popen(
        [*before, sys.executable, "-m", "aelab", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def points():
    return [info for info in Store().runs() if info.tags["aelab.kind"] == "run"]


def until_both_train(process, here):
    end = time.monotonic() + 120
    while not (here / "mlflow.db").exists() or sum("step/loss" in info.metrics for info in points()) < 2:
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.2)


def children(pid):
    """The processes that a process has started, by id."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(number) for number in found]


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_sweep_goes_on(number, here):
    process = sweep()
    until_both_train(process, here)
    started = children(process.pid)
    assert len(started) >= 2
    process.send_signal(number)  # to the parent alone
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 if number == signal.SIGTERM else -number
    assert "Traceback" not in err
    until(lambda: not any(map(lives, started)), 30)
    assert {info.status for info in points()} == {"KILLED"}, "each has saved its run"
    if number == signal.SIGTERM:
        assert "same command" in err
    for info in points():
        assert checkpoint.newest(Store().folder(info) / "checkpoints", "last", pytest.fail)
    before = {info.id for info in points()}
    again = sweep()
    _, err = again.communicate(timeout=600)
    assert again.returncode == 0, err
    finished = points()
    assert [info.status for info in finished] == ["FINISHED"] * 2, "none twice, none missing"
    assert before <= {info.id for info in finished}, "the stopped ones went on"
    assert len([info for info in Store().runs() if info.tags["aelab.kind"] == "sweep"]) == 1
    assert sorted(info.params["latent_dim"] for info in finished) == ["2", "3"]


def test_a_sweep_under_nohup_survives_the_end_of_the_session(here):
    process = sweep("nohup")
    until_both_train(process, here)
    for pid in (process.pid, *children(process.pid)):
        os.kill(pid, signal.SIGHUP)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert [info.status for info in points()] == ["FINISHED"] * 2


def test_a_sweep_that_is_killed_before_its_points_have_begun_leaves_no_process(here):
    process = sweep()
    until(lambda: len(children(process.pid)) >= 3 or process.poll() is not None, 120)  # one watches shared memory
    started = children(process.pid)
    process.kill()
    process.communicate(timeout=60)
    until(lambda: not any(map(lives, started)), 60)
    Store().mark_dead()
    assert {info.status for info in points()} <= {"KILLED", "FAILED"}


def test_a_sweep_of_24_points_that_is_killed_three_times_trains_none_twice(here):
    """Killed with SIGKILL at random moments; each time when more points are done than before."""
    chance, done = random.Random(24), 0
    for _ in range(3):
        process = sweep(words=GRID)
        wanted = done + chance.randrange(2, 6)
        end = time.monotonic() + 900
        while done < wanted:
            assert time.monotonic() < end and process.poll() is None
            time.sleep(0.5)
            if (here / "mlflow.db").exists():
                done = sum(info.status == "FINISHED" for info in points())
        time.sleep(chance.uniform(0, 2))
        started = children(process.pid)
        process.kill()
        process.communicate(timeout=60)
        until(lambda: not any(map(lives, started)), 60)  # noqa: B023  # called at once
    finished = {info.id for info in points() if info.status == "FINISHED"}
    process = sweep(words=GRID)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    after = points()
    assert len(after) == 24 and {info.status for info in after} == {"FINISHED"}, "none twice, none missing"
    assert len({info.tags["aelab.identity"] for info in after}) == 24
    assert finished <= {info.id for info in after}
    assert len([info for info in Store().runs() if info.tags["aelab.kind"] == "sweep"]) == 1


def test_sweeps_that_begin_together_train_a_shared_point_once(here):
    words = ["sweep", "linear", "--data", "digits", "--epochs", "40", "--max-steps", "400", "-q"]
    sweep(words=[*words, "latent_dim=7,8"]).communicate(timeout=600)  # the store is there
    both = [sweep(words=[*words, f"latent_dim={values}"]) for values in ("2,3", "2,4")]
    for process in both:
        _, err = process.communicate(timeout=600)
        assert process.returncode == 0, err
    trained = [info for info in points() if info.params["latent_dim"] in "234"]
    assert sorted(info.params["latent_dim"] for info in trained) == ["2", "3", "4"]
    assert {info.status for info in Store().runs()} == {"FINISHED"}


def test_a_sweep_waits_for_a_training_of_one_of_its_points(here):
    words = ["stacked", "--data", "digits", "--epochs", "200", "-q"]
    alone = sweep(words=["train", *words, "--latent-dim", "2"])
    end = time.monotonic() + 120
    while not (here / "mlflow.db").exists() or not points():
        assert time.monotonic() < end and alone.poll() is None
        time.sleep(0.2)
    process = sweep(words=["sweep", *words, "latent_dim=2,3"])
    _, err = process.communicate(timeout=600)
    assert process.returncode == 0 and alone.wait(timeout=60) == 0, err
    assert "another process trains this point" in err
    assert sorted(info.params["latent_dim"] for info in points()) == ["2", "3"]


def test_a_point_that_ends_right_after_it_has_answered_has_not_failed(here, monkeypatch):
    """As if each answer came after the parent had looked at the line, and before it looked at the process."""
    look = launching.wait
    monkeypatch.setattr(
        launching, "wait", lambda each, timeout: look([one for one in each if isinstance(one, int)], timeout)
    )
    done = aelab.sweep("linear", latent_dim=[2, 3], jobs=2, data="digits", max_steps=2)
    assert not done.failed and len(done.runs) == 2
