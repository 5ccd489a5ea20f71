"""The first version's promises: the same command gives the same bits, and its stores are still understood.

`first_version/` was made by version 0.1.0 on one thread of a CPU with torch 2.13: the digests of the weights of short
trainings, and a store of eleven runs whose paths begin with /first-version. `gan` and `vae` have other networks since
then, and a density of grey values is one of dequantised values.
"""

import hashlib
import json
import shutil
import sqlite3
import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

MADE = Path(__file__).parent / "first_version"
BEFORE = json.loads((MADE / "weights.json").read_text())
SHORT = ("--data", "digits", "--max-steps", 40, "--epochs", 2)
WORDS = {
    **{f"{name}-digits": (name, *SHORT) for name in
       ("convolutional", "denoising", "linear", "pretrained", "recurrent", "stacked", "vaegan")},
    **{f"{name}-mnist": (name, "--data", "mnist-5k", "--max-steps", 8, "--epochs", 1) for name in
       ("convolutional", "vaegan")},
    "denoising-masking": ("denoising", *SHORT, "--noise", "masking", "--level", 0.3),
    "pretrained-labels": ("pretrained", "--data", "digits", "--epochs", 1, "--finetune", 1, "--pseudo-label", 1,
                          "--labels", 50, "--freeze", 1),
    "recurrent-lstm": ("recurrent", *SHORT, "--cell", "lstm"),
    "stacked-greedy": ("stacked", *SHORT, "--greedy"),
}  # fmt: skip


def unpack(folder):
    """The store, as if it had been trained in `folder`."""
    with tarfile.open(MADE / "store.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with sqlite3.connect(folder / "mlflow.db") as database:
        for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri"),
                              ("model_versions", "source"), ("model_versions", "storage_location")):  # fmt: skip
            database.execute(f"UPDATE {table} SET {column} = replace({column}, '/first-version', '{folder}')")
    database.close()


def facts(folder):
    """The digest of a run's last weights, whatever their names, and the norm of each tensor."""
    weights = load_file(sorted(folder.glob("checkpoints/last-*"))[-1] / "weights.safetensors").values()
    digests = (hashlib.sha256(str(tuple(w.shape)).encode() + w.contiguous().numpy().tobytes()) for w in weights)
    return {
        "sha256": hashlib.sha256("".join(sorted(d.hexdigest() for d in digests)).encode()).hexdigest(),
        "norms": sorted(float(w.double().norm()) for w in weights),
    }


def assert_same(folder, name):
    """Bit for bit on the processor and the torch that made the digests; elsewhere their rounding differs."""
    found, before = facts(folder), BEFORE["runs"][name]
    alike = (torch.__version__, torch.backends.cpu.get_cpu_capability()) == (BEFORE["torch"], BEFORE["cpu"])
    assert found["norms"] == pytest.approx(before["norms"], rel=1e-3, abs=1e-3)
    assert not alike or found["sha256"] == before["sha256"]


@pytest.mark.parametrize("name", WORDS)
def test_a_recipe_trains_to_the_same_bits(name, cli, here):
    assert WORDS.keys() | {"mine-400", "vae-digits", "vae-mnist", "vae-k"} == BEFORE["runs"].keys()
    answer = cli("train", *WORDS[name], "--name", name, "--seed", 3, "-q")
    assert answer.code == 0, answer.err
    (folder,) = here.glob("mlruns/aelab/*/artifacts")
    assert_same(folder, name)


@pytest.fixture
def store(here):
    unpack(here)
    return here


def test_a_stopped_run_of_an_unchanged_recipe_ends_as_a_whole_one_did(store, cli):
    answer = cli("resume", "mine-stopped", "-q")
    assert answer.code == 0, answer.err
    (config,) = (p for p in store.glob("mlruns/aelab/*/artifacts/config.json") if '"epochs": 400' in p.read_text())
    assert_same(config.parent, "mine-400")


def test_its_runs_are_listed_evaluated_compared_and_exported(store, cli):
    answer = cli("runs", "--json")
    assert answer.code == 0, answer.err
    names = {run["name"] for run in answer.json["runs"]}
    assert {"old-gan", "old-vae", "old-vaegan", "old-denoising", "mine-whole", "mine-stopped"} <= names
    assert len(names) == 11
    for name in ("old-vaegan", "mine-whole"):
        answer = cli("eval", name, "--plain", "--json")
        assert answer.code == 0, answer.err
        assert answer.json["runs"][0]["metrics"]["test/mse"] > 0
    assert cli("sample", "mine-whole", "-n", 4).code == 0
    answer = cli("compare", "old-gan", "old-vaegan", "--json")
    assert answer.code == 0, answer.err
    rows = {row["run"]: row for row in answer.json["runs"]}
    with sqlite3.connect(store / "mlflow.db") as database:
        query = "SELECT value FROM latest_metrics JOIN runs USING (run_uuid) WHERE name = 'old-gan' AND key = ?"
        (before,) = database.execute(query, ["test/frechet_lenet"]).fetchone()
    database.close()
    assert rows["old-gan"]["test/fd_lenet"] == before
    assert cli("runs", "export", "mine-whole", "out").code == 0
    answer = cli("sample", "old-gan")
    assert answer.code == 1 and "the weights of old-gan do not fit gan.py as it is now" in answer.err


def test_a_run_whose_recipe_has_changed_is_used_with_the_file_that_trained_it(store, cli):
    answer = cli("eval", "old-vae", "--plain")
    assert answer.code != 0 and len(answer.err.splitlines()) == 3 and "hidden" in answer.err
    own = Path(answer.err.splitlines()[-1].rpartition(": ")[2])
    shutil.copy(own, store / "recipes")
    answer = cli("eval", "models:/oldmodel@best", "--plain", "--json")
    assert answer.code == 0, answer.err
    assert answer.json["runs"][0]["metrics"]["test/mse"] > 0


def test_its_names_of_metrics_are_understood_and_said_once(store, cli):
    answer = cli(
        "compare",
        "old-gan",
        "--metric",
        "kept/forger",
        "--metric",
        "test/judge_error",
        "--metric",
        "kept/forger",
        "--json",
    )
    assert answer.code == 0, answer.err
    (row,) = answer.json["runs"]
    assert row["best/g_loss"] > 0 and row["test/classifier_error"] > 0
    assert answer.err.splitlines() == [
        "warning: kept/forger is called best/g_loss now.",
        "warning: test/judge_error is called test/classifier_error now.",
    ]
    answer = cli("compare", "old-gan", "old-vaegan", "--metric", "kept/critic", "--json")
    assert answer.code == 0 and "best/d_loss" in answer.err, answer.err
    assert cli("compare", "old-gan", "--curve", "step/grad_g", "--out", "curve.png", "-q").code == 0
    assert cli("runs", "show", "old-gan").out.count("diagnostics") == 1


def test_a_metric_of_ones_own_keeps_its_name(here, cli):
    """A recipe may call a metric as the lecture's game once called one of its own."""
    own = """
import torch
from aelab.recipe import Recipe

class Own(Recipe):
    def __init__(self, image, *, lr: float = 1e-3) -> None:
        super().__init__()
        self.lr, self.verdict = lr, torch.nn.Linear(1, 1)

    def loss(self, x, y):
        return (self.verdict.weight - 1).square().sum() + self.verdict.bias.square().sum(), {"like": self.verdict.weight.sum()}
"""
    (here / "own.py").write_text(f'"""L = w (2000)."""\n{own}')
    assert cli("train", "./own.py", "--data", "digits", "--max-steps", 3, "--name", "own", "-q").code == 0
    assert "best/like" in cli("runs", "show", "own", "--json").json["metrics"]
    answer = cli("eval", "own", "--plain")
    assert answer.code == 0, answer.err
