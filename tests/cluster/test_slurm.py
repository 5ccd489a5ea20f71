"""Sweeps in a real Slurm on this machine: jobs are cancelled, timed out, started again, and lose their node."""

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from machinery import same_run, until
from slurm_here import Slurm, missing

import aelab
from aelab.tracking import Store

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())} (Debian: slurm-wlm, munge)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # what is killed closes nothing
]
SLOW = '''"""A linear autoencoder with noise, which can be told to take its time."""

import os
import time
from typing import Annotated

import torch
from annotated_types import Ge
from torch import nn

from aelab.recipe import Recipe


class Slow(Recipe):
    def __init__(self, image, *, latent_dim: Annotated[int, Ge(1), "dimension D of the code"] = 2) -> None:
        super().__init__()
        pixels = image[0] * image[1] * image[2]
        self.lr = 1e-3
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(pixels, latent_dim))
        self.decoder = nn.Sequential(nn.Linear(latent_dim, pixels), nn.Unflatten(1, image))

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def loss(self, x, y):
        if self.training:
            time.sleep(float(os.environ.get("PAUSE", "0")))
        z = self.encode(x)
        return ((self.decode(z + 0.1 * torch.randn_like(z)) - x) ** 2).mean(), {}
'''


@pytest.fixture(scope="module")
def slurm():
    cluster = Slurm()
    yield cluster
    cluster.stop()


@pytest.fixture
def sweep(slurm, here):
    """Starts `aelab sweep ./slow.py WORDS` in Slurm; a step takes a tenth of a second there."""
    Path("slow.py").write_text(SLOW)
    Store()
    started = []

    def start(*words, slurm_options="time=10,signal=USR1@10"):
        number = len(started)
        typed = ["--data", "digits", "--launcher", "slurm", "--slurm", slurm_options]
        environment = {**os.environ, "SLURM_CONF": slurm.environment["SLURM_CONF"], "PAUSE": "0.1"}
        with Path(f"sweep{number}.out").open("w") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "aelab", "sweep", "./slow.py", *map(str, words), *typed],
                env=environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        process.said = Path(f"sweep{number}.out").read_text
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    slurm.ask("scancel", "--name=aelab-slow")
    until(lambda: not slurm.ask("squeue", "--noheader"), 60)


def points():
    """The runs of points, by the size of their code; no two have the same."""
    found = [info for info in Store().runs() if info.tags["aelab.kind"] == "run" and "latent_dim" in info.params]
    by_size = {int(info.params["latent_dim"]): info for info in found}
    assert len(by_size) == len(found), "a point twice"
    return by_size


def training():
    """The points that train: those with a first metric."""
    return {size: info for size, info in points().items() if "step/loss" in info.metrics}


def like_whole_runs():
    """Each point is bit for bit a run that was never stopped, which is trained here."""
    for size, info in points().items():
        assert info.status == "FINISHED"
        aelab.train("./slow.py", latent_dim=size, epochs=int(info.params["epochs"]), data="digits", name=f"whole{size}")
        same_run(info.name, f"whole{size}")


def log_of(size):
    (path,) = Path("slurm").glob(f"*/slow-latent_dim{size}-*.log")
    return path.read_text()


def in_time(slurm, job, seconds):
    """The whole minutes of a time limit that a running job reaches in so many seconds, or in some more."""
    hours = [int(part) for part in slurm.ask("squeue", "--noheader", f"--jobs={job}", "--format=%M").split(":")]
    return math.ceil((sum(60**n * part for n, part in enumerate(reversed(hours))) + seconds) / 60)


def test_of_six_points_none_is_lost_and_none_trained_twice(slurm, sweep):
    words = ("latent_dim=2..7", "--epochs", 150, "--jobs", 6)
    first = sweep(*words)
    until(lambda: len(training()) == 6 or first.poll() is not None, 300)
    assert first.poll() is None, first.said()
    job = {size: info.tags["aelab.slurm_job"] for size, info in points().items()}
    slurm.tell("scancel", job[2])
    slurm.tell("scontrol", "requeue", job[3])
    slurm.tell("scontrol", "update", f"JobId={job[4]}", f"TimeLimit={in_time(slurm, job[4], 20)}")
    node = slurm.state(job[7])[1]
    slurm.kill_node(node)
    until(lambda: slurm.state(job[4])[0] == "PENDING", 120)
    slurm.tell("scontrol", "update", f"JobId={job[4]}", "TimeLimit=10")
    until(lambda: node in slurm.ask("sinfo", "--noheader", "--Node", "--states=down", "--format=%N").split(), 120)
    slurm.start_node_again(node)
    assert first.wait(timeout=600) == 1, first.said()
    assert "latent_dim 2: it was cancelled in Slurm" in first.said() and "1 of 6 points failed" in first.said()
    assert {size: info.status for size, info in points().items()} == {
        2: "KILLED",
        **dict.fromkeys(range(3, 8), "FINISHED"),
    }
    assert "stopped by SIGUSR1" not in first.said(), "a point that reached its limit went on by itself"
    assert "continues at step" in log_of(3) and "continues at step" in log_of(4)
    second = sweep(*words)
    assert second.wait(timeout=300) == 0, second.said()
    assert "continues at step" in log_of(2)
    assert "1 point is submitted" in second.said()
    assert [info.status for info in Store().runs() if info.tags["aelab.kind"] == "sweep"] == ["FINISHED"]
    like_whole_runs()


def test_the_command_leaves_and_collects(slurm, sweep):
    first = sweep("latent_dim=2,3", "--epochs", 15, "--jobs", 1)
    until(lambda: len(training()) == 1 or first.poll() is not None, 120)
    first.send_signal(signal.SIGINT)
    assert first.wait(timeout=30) == 130, first.said()
    assert "2 points are queued or running in Slurm" in first.said() and "scancel" in first.said()
    second = sweep("latent_dim=2,3,4", "--epochs", 15, "--jobs", 1)  # another sweep, with the same points and a new one
    assert second.wait(timeout=300) == 0, second.said()
    assert "2 points are queued or running in Slurm already" in second.said()
    assert "1 point is submitted" in second.said()
    assert {size: info.status for size, info in points().items()} == dict.fromkeys((2, 3, 4), "FINISHED")
    assert "continues" not in log_of(2) + log_of(3) + log_of(4)


def test_a_node_that_loses_its_power(slurm, sweep):
    """Its daemon and all that runs on it are killed at once."""
    process = sweep("latent_dim=2,3", "--epochs", 80, "--jobs", 2)
    until(lambda: len(training()) == 2 or process.poll() is not None, 120)
    info = points()[2]
    until((Store().folder(info) / "checkpoints").exists, 60)
    node = slurm.state(info.tags["aelab.slurm_job"])[1]
    slurm.cut_power(node)
    until(lambda: slurm.state(info.tags["aelab.slurm_job"])[1] not in (node, ""), 180)
    assert process.wait(timeout=400) == 0, process.said()
    slurm.start_node(node)
    slurm.until_up()
    like_whole_runs()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("partition=mian", "invalid partition specified: mian"),
        ("partition=mian", "There are: main. Did you mean main?"),
        ("time=soon", "Invalid --time specification"),
        ("gpus=1", "Invalid generic resource"),
        ("cpus-per-task=100", "No node that is up has"),
        ("priorty=5", "unrecognized option '--priorty=5'"),
        ("array=3", "aelab sets this option"),
        ("job_name=x", "aelab sets this option"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_submitted(slurm, cli, monkeypatch, here, options, says):
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    before = slurm.ask("squeue", "--states=all")
    answer = cli("sweep", "vae", "latent_dim=2,3", "--data", "digits", "--launcher", "slurm", "--slurm", options)
    assert answer.code == 2 and says in answer.err
    assert len(answer.err.strip().splitlines()) <= 3
    assert slurm.ask("squeue", "--states=all") == before
    assert not (here / "mlflow.db").exists() and not (here / "slurm").exists()


def test_an_array_that_slurm_refuses(slurm, cli, monkeypatch, here):
    """Slurm's arrays have an end; what it says is what the user is told."""
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    monkeypatch.setattr("aelab.workflows.slurm_array.check", lambda options: None)
    answer = cli("sweep", "linear", "latent_dim=2,3", "--data", "digits", "--launcher", "slurm", "--slurm", "time=soon")
    assert answer.code == 1 and "Slurm does not take the points: Invalid --time specification" in answer.err
    assert not list(here.glob("slurm/*/*")), "nothing is left"
    assert [info.status for info in Store().runs()] == ["FAILED"]
