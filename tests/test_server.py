"""The whole path through a real MLflow server that keeps the artifacts itself. Slow: pytest -m slow"""

import re
import socket
import subprocess
import sys
import time
import urllib.request

import mlflow
import numpy as np
import pytest

from aelab.tracking import Store, models, served

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(here, monkeypatch):
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{here}/server.db"]
    command += ["--artifacts-destination", str(here / "kept"), "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(240):
        try:
            urllib.request.urlopen(url + "/health", timeout=1)
            break
        except OSError:
            time.sleep(0.25)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    yield here / "kept"
    process.terminate()
    process.wait()


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
    assert process.wait(timeout=30) == 143
    for path in sorted((here / "cache").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    resumed = subprocess.Popen([sys.executable, "-m", "aelab", "resume", "cut"], stderr=subprocess.PIPE, text=True)
    line = resumed.stderr.readline()
    assert re.search(r"cut  goes on at step [1-9]", line), line
    resumed.terminate()
    assert resumed.wait(timeout=30) == 143


def test_the_pages_of_a_local_store_are_served(cli, here):
    cli("train", "linear", "--data", "digits", "--epochs", 1, "-q")
    port = free_port()
    with served(Store(), port), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert b"MLflow" in answer.read()
