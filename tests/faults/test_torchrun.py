"""One training in several processes: the numbers of one process, one run, one writer, whatever is killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from machinery import history, run_folder, until

from aelab.tracking import Store
from aelab.training import checkpoint

STEPS = Path(__file__).with_name("group_steps.py")
SAVED_OFTEN = "import aelab, aelab.cli, aelab.training.saving as s\ns.SAVE_SECONDS = 0.5\naelab.cli.main()\n"
STEPS_OF_THE_RUN = 800
LONG = ("train", "vae", "--data", "digits", "--max-steps", STEPS_OF_THE_RUN, "--epochs", 40, "--name", "run")

CALM = ["vae", "vae net=mlp conditional=yes", "vae samples=5", "denoising", "recurrent",
        "stacked", "pixelcnn", "pixelcnn likelihood=logistic"]  # fmt: skip
NORMALISED = ["stacked", "vae", "vae samples=5"]  # a bias in front of a normalisation has no gradient but rounding
WILD = ["gan", "gan net=conv", "gan conditional=yes", "vaegan", "vae", "vae likelihood=gaussian",
        "stacked greedy=yes hidden=100,50", "denoising noise=dropout hidden=100", "convolutional",
        "linear", "linear variational=yes",
        "pretrained epochs=8 labels=100 hidden=100 finetune=6 pseudo_label=6",
        "pretrained epochs=10 variational=yes finetune=10"]  # fmt: skip


class Several:
    """The processes of one torchrun."""

    def __init__(self, *words, processes=2, restarts=0, script=()):
        self.out, self.errors = (Path(f"torchrun.{name}").open("a+") for name in ("out", "err"))  # noqa: SIM115
        start = ["--nproc-per-node", str(processes), "--max-restarts", str(restarts), "--monitor-interval", "0.1"]
        program = script or ("-m", "aelab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *start, *program, *map(str, words)],
            stdout=self.out,
            stderr=self.errors,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    @property
    def said(self):
        self.out.seek(0)
        return self.out.read()

    @property
    def err(self):
        self.errors.seek(0)
        return self.errors.read()

    @property
    def ranks(self):
        """The process of each rank."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = {}
        for pid in map(int, children):
            variables = dict(v.split("=", 1) for v in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in v)
            if "RANK" in variables:
                found[int(variables["RANK"])] = pid
        return found

    def wait(self, code=0):
        ended = self.process.wait(240)
        assert (ended == 0) == (code == 0), self.said + self.err


@pytest.fixture
def several(here, empty_store):
    """Starts torchrun; an empty store is here."""
    (here / "mlflow.db").write_bytes(empty_store.read_bytes())
    started = []

    def start(*words, **how):
        started.append(Several(*words, **how))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.terminate()
            each.process.wait(60)
        each.out.close()
        each.errors.close()


@pytest.fixture
def saved_often(here):
    script = here / "often.py"
    script.write_text(SAVED_OFTEN)
    return (str(script),)


def steps(here, several, precision, names):
    """What the steps of one process and of two left, by recipe."""
    for folder in ("one", "two"):
        (here / folder).mkdir()
    subprocess.run([sys.executable, STEPS, "one", precision, *names], check=True, cwd=here)
    several("two", precision, *names, script=(str(STEPS),)).wait()
    return {name: [torch.load(here / folder / f"{name}.pt") for folder in ("one", "two")] for name in names}


def relative(a, b):
    return float(((a - b).abs() / a.abs()).max())


def test_200_steps_of_two_processes_are_those_of_one(here, several):
    """Losses to 1e-5, and weights."""
    for name, ((_, one, weights), (differing, two, others)) in steps(here, several, "float32", CALM).items():
        assert not differing and len(one) == len(two) == 200, name
        assert relative(one, two) < 1e-5, name
        if name not in NORMALISED:
            for key, value in weights.items():
                assert torch.allclose(value, others[key], rtol=1e-3, atol=1e-4), (name, key)


def test_where_rounding_grows_it_is_rounding(here, several):
    """In double precision two processes are one to 1e-10, after 200 steps of whatever recipe; in single precision at first."""
    for name, ((_, one, weights), (differing, two, others)) in steps(here, several, "float64", WILD).items():
        assert not differing and len(one) == len(two) == 200, name
        assert relative(one, two) < 1e-10, name
        for key, value in weights.items():
            assert torch.allclose(value, others[key], rtol=1e-6, atol=1e-6), (name, key)


def test_two_optimizers_begin_as_in_one_process(here, several):
    for (_, one, _), (differing, two, _) in steps(here, several, "float32", ["gan", "vaegan"]).values():
        assert not differing and relative(one[:10], two[:10]) < 1e-5


def step_saved():
    """The step of the newest checkpoint; -1 without one."""
    found = sorted(Path().glob("mlruns/*/*/artifacts/checkpoints/last-*"))
    return int(found[-1].name.partition("-")[2]) if found else -1


def one_run(status):
    (info,) = Store().runs()
    assert info.status == status, info.tags.get("aelab.reason")
    return info


def is_the_run_of_one_process():
    """The run has the points of `whole`, none twice, and the same numbers but for rounding."""
    a, b = history("run"), history("whole")
    assert a.keys() == b.keys() and all(len(values) == 1 for values in a.values())
    for key, (value,) in a.items():
        assert value == pytest.approx(b[key][0], rel=1e-4, abs=1e-5), key
    ends = [checkpoint.newest(run_folder(name) / "checkpoints", "last", pytest.fail) for name in ("run", "whole")]
    for name, weight in ends[0].weights.items():
        assert torch.allclose(weight, ends[1].weights[name], rtol=1e-3, atol=1e-3), name


def test_a_run_that_is_stopped_in_two_goes_on_in_one_and_in_two(several, saved_often, aelab, tally):
    """SIGTERM for torchrun: the run is saved once, and ends as that of one process that nobody stopped."""
    words = LONG
    for processes in (2, 1, 2):
        before = step_saved()
        group = several(*words, processes=processes, script=saved_often)
        until(lambda before=before: step_saved() > before, 120, group)
        group.process.send_signal(signal.SIGTERM)
        group.wait(code=1)
        assert one_run("KILLED").tags["aelab.reason"] == "stopped by SIGTERM"
        words = ("resume", "run")
    assert group.err.count("Interrupted: run is saved at step") == 3
    assert step_saved() < STEPS_OF_THE_RUN, "it was over before it was stopped"
    several("resume", "run").wait()
    one_run("FINISHED")
    aelab.run(*LONG[:-1], "whole")
    is_the_run_of_one_process()
    tally("SIGTERM for torchrun", 3)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("when", ["before a checkpoint", "after one"])
def test_a_killed_process_is_started_again_and_goes_on_with_the_run(several, saved_often, aelab, tally, rank, when):
    """torchrun starts all of them again; they continue the run, and begin no other."""
    group = several(*LONG, restarts=1, script=saved_often if when == "after one" else ())
    if when == "after one":
        until(lambda: step_saved() > 0, 120, group)
    else:
        until(lambda: list(Path().glob("mlruns/*/*/artifacts/images/*.webp")), 120, group)
    os.kill(group.ranks[rank], signal.SIGKILL)
    group.wait()
    one_run("FINISHED")
    assert "goes on" in group.err or "continues at step" in group.err
    aelab.run(*LONG[:-1], "whole")
    is_the_run_of_one_process()
    tally(f"SIGKILL for the process of rank {rank}")


def test_what_diverges_is_not_started_again(several):
    group = several("train", "linear", "--data", "digits", "--epochs", 3, "--lr", 1e30, restarts=1)
    group.wait(code=1)
    one_run("FAILED")
    assert "it is not started again" in group.err


@pytest.mark.parametrize(
    ("words", "processes", "says"),
    [
        (("train", "vae", "--data", "digits"), 3, "--batch-size 64 cannot be divided by 3 processes."),
        (("train", "rbm", "--data", "digits"), 2, "rbm cannot be trained by 2 processes with these options"),
        (("train", "vae", "--data", "digits", "--epochs", "x"), 2, "--epochs"),
        (("train", "vae", "--data", "nowhere"), 2, "nowhere"),
        (("runs",), 2, "torchrun has started 2 processes"),
    ],
    ids=["batch", "rbm", "option", "data", "verb"],
)
def test_what_cannot_be_divided_is_said_once_before_a_run_begins(several, words, processes, says):
    group = several(*words, processes=processes)
    group.wait(code=2)
    assert group.err.count(says) == 1 and group.err.count("error: ") == 1
    assert not Store().runs()
    assert group.said == ""


def test_only_one_process_speaks(several):
    group = several("train", "stacked", "--data", "digits", "--epochs", 2, "--name", "run")
    group.wait()
    assert group.said.count("run finished in") == 1
    assert group.err.count("epoch 2/2") == 1 and group.err.count("cpu, 1 thread x 2") == 1
    assert "Gloo" not in group.said + group.err
