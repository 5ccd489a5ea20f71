"""Sweeps in Slurm, without one: shell scripts answer for its commands. tests/cluster/test_slurm.py has a real one."""

import importlib.util
import json
import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest
from machinery import same_run

import aelab
from aelab import recipe_files
from aelab.errors import UserError
from aelab.tracking import Store
from aelab.workflows import slurm_array
from aelab.workflows.launching import Job
from aelab.workflows.planning import plan
from aelab.workflows.slurm_array import Task

STOPS = '''"""A linear autoencoder with noise that is told to stop once."""

import os
import signal
from pathlib import Path

import torch
from torch import nn

from aelab.recipe import Recipe


class Stops(Recipe):
    def __init__(self, image) -> None:
        super().__init__()
        pixels = image[0] * image[1] * image[2]
        self.lr, self.steps = 1e-3, 0
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 2), nn.Linear(2, pixels), nn.Unflatten(1, image))

    def loss(self, x, y):
        self.steps += 1
        if self.steps == 25 and (flag := Path("stop")).exists():
            os.kill(os.getpid(), int(flag.read_text()))
            flag.unlink()
        return (self.net(x + 0.1 * torch.randn_like(x)) - x).square().mean(), {}
'''


@pytest.fixture
def answers(here, monkeypatch):
    """Lets a command of Slurm answer with a text and an exit code; what it was asked is in the file asked."""
    (here / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{here}/bin:/usr/bin:/bin")

    def answer(command, out="", err="", code=0):
        script = here / "bin" / command
        (here / f"{command}.out").write_text(out)
        (here / f"{command}.err").write_text(err)
        files = f"{here}/{command}"
        lines = f'echo {command} "$@" >> {here}/asked', f"cat {files}.out", f"cat {files}.err >&2", f"exit {code}"
        script.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        script.chmod(0o755)

    return answer


@pytest.fixture
def job(here):
    """A training of forty steps, as a job of a sweep."""
    Path("stops.py").write_text(STOPS)
    recipe_file = recipe_files.trust("./stops.py")
    planned = plan("./stops.py", data="digits", epochs=4)
    parent = Store().create(None, "sweep", params={}, tags={"aelab.kind": "sweep", "aelab.recipe": "stops"})
    parent.close("FINISHED")
    return Job(planned.config, recipe_file, planned.identity, "seed 0", "stops-seed0-", None, parent.id)


@pytest.fixture
def in_slurm(monkeypatch):
    """This process is the task 4 of an array."""
    monkeypatch.setenv("SLURM_JOB_ID", "127")
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "123")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    monkeypatch.setattr(slurm_array, "_log_lines", lambda: None)


def run_of(job):
    return Store().newest(identity=job.identity)


def train(job):
    return slurm_array.train_point(job, Store().uri, False, None)


def test_without_slurm(cli, monkeypatch, here):
    monkeypatch.setenv("PATH", str(here))
    answer = cli("sweep", "vae", "latent_dim=2,3", "--data", "digits", "--launcher", "slurm")
    assert answer.code == 2 and "Slurm is not on this machine" in answer.err
    assert not (here / "mlflow.db").exists()


def test_without_submitit(cli, monkeypatch, answers, here):
    answers("sbatch")
    real = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "submitit" else real(name, *more)
    )
    answer = cli("sweep", "vae", "latent_dim=2,3", "--data", "digits", "--launcher", "slurm")
    assert answer.code == 2 and "pip install 'aelab[slurm]'" in answer.err
    assert not (here / "mlflow.db").exists()


def test_options_of_slurm_without_its_launcher(cli):
    answer = cli("sweep", "vae", "latent_dim=2,3", "--data", "digits", "--slurm", "time=5")
    assert answer.code == 2 and "--launcher slurm" in answer.err


@pytest.mark.parametrize(
    ("complaint", "says"),
    [
        ("sbatch: error: invalid partition specified: mian\nallocation failure: Invalid partition name", "Did you mean main?"),
        ("allocation failure: Unable to contact slurm controller (connect failure)", "Unable to contact slurm controller"),
        ("sbatch: error: Invalid --time specification", "time=1:30:00"),
        ("allocation failure: Requested node configuration is not available", "See: sinfo"),
        ("sbatch: unrecognized option '--foo=1'\nTry \"sbatch --help\"", "See: man sbatch"),
        ("", "no reason given"),
    ],
)  # fmt: skip
def test_what_slurm_complains_of(answers, complaint, says):
    answers("sbatch", err=complaint, code=1)
    answers("sinfo", out="main\ngpu\nmain\n")
    with pytest.raises(UserError, match="--slurm: ") as refused:
        slurm_array.check({"partition": "mian", "cpus_per_task": "2"})
    assert says in str(refused.value) and len(str(refused.value).splitlines()) <= 3
    assert "sbatch --test-only --partition=mian --cpus-per-task=2 --wrap=true" in Path("asked").read_text()


def test_what_is_queued_is_found_by_the_folder_of_its_batch_script(answers, here):
    store, other = (SimpleNamespace(database=Path(name), uri="") for name in ("mlflow.db", "other.db"))
    for folder, of in (("1", store), ("2", other), ("3", store)):
        Path(folder).mkdir()
        content = {"store": slurm_array._digest(of), "points": [f"{folder}a", f"{folder}b"]}
        (here / folder / "points.json").write_text(json.dumps(content))
    script = ".submission_file_0.sh"
    lines = [
        f"5_0|COMPLETED|None|{here}/1/{script}",
        f"5_1|RUNNING|None|{here}/1/{script}",
        f"6_1|PENDING|Resources|{here}/2/{script}",  # of another store
        f"7|PENDING|Priority|{here}/3/{script}",  # one point is no array
        "8|RUNNING|None|bash",
        f"9_7|RUNNING|None|{here}/3/{script}",
    ]
    answers("squeue", out="\n".join(lines) + "\n")
    found = slurm_array._queued(store)
    assert {point: task.id for point, task in found.items()} == {"1b": "5_1", "3a": "7"}
    assert slurm_array._in_a_line(list(found.values()), 4) == "1 running, 1 queued (Priority), 4 done"
    assert slurm_array._queued(Store("sqlite:///mlflow.db")).keys() == found.keys(), (
        "the same store, by a relative path"
    )


def test_stopped_ahead_of_its_limit_it_is_queued_again_and_ends_like_a_whole_run(job, answers, in_slurm):
    answers("scontrol")
    Path("stop").write_text(str(int(signal.SIGUSR1)))
    assert train(job) == ""
    stopped = run_of(job)
    assert stopped.status == "KILLED" and stopped.tags["aelab.reason"] == "stopped by SIGUSR1"
    assert stopped.tags["aelab.slurm_job"] == "123_4"
    assert Path("asked").read_text() == "scontrol requeue 123_4\n"
    assert train(job) == ""
    ended = run_of(job)
    assert (ended.id, ended.status, ended.parent) == (stopped.id, "FINISHED", job.parent)
    aelab.train("./stops.py", data="digits", epochs=4, name="whole")
    same_run(ended.name, "whole")


def test_cancelled_it_is_saved_and_not_queued_again(job, answers, in_slurm):
    answers("scontrol")
    Path("stop").write_text(str(int(signal.SIGTERM)))
    assert "is saved at step" in train(job)
    assert run_of(job).status == "KILLED" and not Path("asked").exists()


def test_slurm_may_refuse_to_queue_it_again(job, answers, in_slurm):
    answers("scontrol", err="slurm_requeue error: Access/permission denied", code=1)
    Path("stop").write_text(str(int(signal.SIGUSR1)))
    assert "Slurm does not start it again: slurm_requeue error: Access/permission denied" in train(job)


def test_offline_its_run_waits_for_a_sync(job, in_slurm):
    assert slurm_array.train_point(job, Store().uri, True, None) == ""
    assert run_of(job).tags["aelab.offline"] == "yes"


def test_a_problem_of_the_training_is_returned(job, in_slurm):
    assert "no MLflow server answers" in slurm_array.train_point(job, "http://127.0.0.1:9", False, None)


def begun(job):
    """A run of the job that counts as running, though no process writes it."""
    tags = {"aelab.kind": "run", "aelab.recipe": "stops", "aelab.identity": job.identity}
    run = Store().create(None, "half", params={}, tags=tags)
    run.close()
    return run


@pytest.mark.parametrize(
    ("out", "err", "code", "status"),
    [
        ("RUNNING\n", "", 0, "RUNNING"),
        ("NODE_FAIL\n", "", 0, "FAILED"),
        ("", "", 0, "FAILED"),
        ("", "slurm_load_jobs error: Invalid job id specified", 1, "FAILED"),
        ("", "Unable to contact slurm controller", 1, "RUNNING"),
    ],
)
def test_a_run_is_lost_if_slurm_says_that_its_job_has_ended(job, in_slurm, answers, out, err, code, status):
    answers("squeue", out=out, err=err, code=code)
    begun(job)
    slurm_array._settle(job, Store())
    info = run_of(job)
    assert info.status == status
    assert ("its process ended unexpectedly: its node failed" in info.tags.get("aelab.reason", "")) == ("NODE" in out)


def test_a_run_that_a_process_writes_is_not_lost(job, in_slurm, answers):
    answers("squeue", out="NODE_FAIL\n")
    tags = {"aelab.kind": "run", "aelab.recipe": "stops", "aelab.identity": job.identity}
    run = Store().create(None, "half", params={}, tags=tags)
    other = Store()
    held = run._held  # the lock is one object in a process, so this one stands in for another process
    pid = os.fork()
    if pid == 0:
        slurm_array._settle(job, other)
        os._exit(0)
    os.waitpid(pid, 0)
    assert held.is_locked and run_of(job).status == "RUNNING"
    run.close("FINISHED")


def test_a_run_of_this_job_on_another_machine_is_taken_over(job, in_slurm, monkeypatch):
    """Where a server keeps the files no lock tells whether the earlier process is alive; Slurm has ended it."""
    begun(job)
    store = Store()

    def refused(*arguments):
        raise UserError("it is running on another machine")

    monkeypatch.setattr(store, "held", refused)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")
    slurm_array._wait_for_turn(job, store)
    assert run_of(job).status == "RUNNING", "another job trains it"
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "4")
    slurm_array._wait_for_turn(job, store)
    assert run_of(job).status == "FAILED"


def test_outside_of_slurm_a_resumed_run_has_no_job(job, in_slurm, monkeypatch, answers):
    answers("scontrol")
    Path("stop").write_text(str(int(signal.SIGUSR1)))
    train(job)
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.delenv(name)
    aelab.resume(run_of(job).name)
    assert run_of(job).tags["aelab.slurm_job"] == ""


@pytest.mark.parametrize(
    ("state", "says"),
    [("TIMEOUT", "time limit"), ("CANCELLED", "cancelled in Slurm"), ("OUT_OF_MEMORY", "--slurm mem=16G"), ("FAILED", "failed")],
)  # fmt: skip
def test_why_a_point_failed(job, here, state, says):
    why = slurm_array._outcome(job, Task("5_0", state, "", here / "slurm" / "sweep" / "1"), Store())
    assert says in why and f"slurm/sweep/stops-seed0-{job.identity[:6]}.log" in why


def test_a_sweep_that_is_done_asks_nothing_of_slurm(here):
    assert slurm_array.run_all([], 1, Store(), None, {}) == []
    assert not (here / "slurm").exists()
