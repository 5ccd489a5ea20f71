"""The whole path through a real MLflow server that keeps the artifacts itself. Slow: pytest -m slow"""

import re
import shutil
import subprocess
import sys
import time
import urllib.request

import mlflow
import numpy as np
import pytest
import torch
from machinery import Server, free_port

from aelab.tracking import Store, models, served
from aelab.training import checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture
def server(here, monkeypatch):
    """The folder in which a server keeps the artifacts."""
    running = Server(here / "server").start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.url)
    yield here / "server" / "kept"
    running.stop()


def test_a_run_lives_on_a_server_and_comes_back_to_a_machine_that_never_saw_it(cli, server, here):
    answer = cli("train", "vae", "--data", "digits", "--epochs", 2, "-q")
    assert answer.code == 0, answer.err
    kept = {path.name for path in server.rglob("*") if path.is_file()}
    assert {"config.json", "README.md", "vae.py", "weights.safetensors", "state.pt", "samples.png", "MLmodel"} <= kept
    for path in sorted((here / "cache").rglob("*"), reverse=True):  # another machine: nothing is cached
        path.rmdir() if path.is_dir() else path.unlink()
    assert cli("eval", "vae", "-q", "--no-figures").code == 0
    assert cli("sample", "vae", "--out", "s.png").code == 0
    assert "test/mse" in Store().find("vae").metrics
    assert any(path.name == "samples-64-seed0.png" for path in server.rglob("*"))
    store = Store()
    logged = {each.key: each.dataset_name for each in models.current(store.client, store.find("vae")).metrics}
    assert logged["test/mse"] == "digits"
    assert cli("runs", "register", "vae", "digits").code == 0
    model = mlflow.pyfunc.load_model("models:/digits@best")
    assert model.predict(np.zeros((1, 1, 8, 8), np.float32), params={"task": "encode"}).shape == (1, 20)


def test_a_killed_run_is_resumed_on_another_machine(cli, server, here):
    words = [
        sys.executable,
        "-m",
        "aelab",
        "train",
        "gan",
        "--data",
        "digits",
        "--epochs",
        "400",
        "-q",
        "--name",
        "cut",
    ]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not list(server.rglob("*step?2?*.webp")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143
    for path in sorted((here / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    resumed = subprocess.Popen([sys.executable, "-m", "aelab", "resume", "cut"], stderr=subprocess.PIPE, text=True)
    line = resumed.stderr.readline()
    assert re.search(r"cut  continues at step [1-9]", line), line
    resumed.terminate()
    resumed.communicate(timeout=30)
    assert resumed.returncode == 143


def test_checkpoints_are_on_the_server_while_a_run_is_trained(server, here):
    store = Store()
    run = store.create(None, "one", params={}, tags={"aelab.recipe": "vae", "aelab.kind": "run"})
    run.json("config.json", {})

    def save(kind, step):
        state = {"step": step} if kind == "last" else {}
        checkpoint.save(run.folder / "checkpoints", kind, step, {"w": torch.full((2,), float(step))}, state, {})

    def on_server():
        return {path.parent.name for path in server.rglob("manifest.json")}

    def until_there(name):
        end = time.monotonic() + 60
        while name not in on_server():
            assert time.monotonic() < end, on_server()
            time.sleep(0.1)

    for step in (10, 20, 30, 40):
        run.metrics({"step/loss": 1.0}, step)
        save("best", step)
        save("last", step)
        until_there(f"last-{step:08d}")
        assert [at for at, _ in store.curve(run.info, "step/loss")][-1] == step, "what was logged before it is there"
        assert f"best-{step:08d}" in on_server()
    assert on_server() >= {"last-00000030", "last-00000040", "best-00000040"}
    assert "last-00000010" not in {path.name for path in server.rglob("last-*")}, "older ones are removed"
    artifacts = next(server.rglob("last-00000040")).parent
    (artifacts / "last-00000050").mkdir()  # what a machine was sending when it went down
    (artifacts / "last-00000050" / "weights.safetensors").write_bytes(b"half")
    shutil.rmtree(run.folder / "checkpoints")
    assert checkpoint.newest(store.folder(run.info) / "checkpoints", "last", pytest.fail).manifest["step"] == 40
    save("last", 60)
    run.close("KILLED")
    assert {path.name for path in artifacts.iterdir()} == {"best-00000040", "last-00000040", "last-00000060"}


def test_the_pages_of_a_local_store_are_served(cli, here):
    cli("train", "linear", "--data", "digits", "--epochs", 1, "-q")
    port = free_port()
    with served(Store(), port), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert b"MLflow" in answer.read()
