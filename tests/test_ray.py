"""Sweeps on a Ray cluster: two nodes on this machine, each with a host name, a working folder and a cache of its own."""

import importlib.util
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from machinery import Server, free_port, history, until

import aelab
from aelab import recipe_files
from aelab.errors import UserError
from aelab.tracking import Store
from aelab.training import checkpoint, saving
from aelab.workflows import launching, ray_cluster
from aelab.workflows.launching import Job
from aelab.workflows.planning import plan

HAS_RAY = importlib.util.find_spec("ray") is not None
on_a_cluster = [
    pytest.mark.ray,
    pytest.mark.skipif(not HAS_RAY, reason="Ray is not installed: uv sync --extra ray"),
]
SLOW = """
"Autoencoder that takes its time, saves every second, and counts the steps that are taken."
import time
from pathlib import Path
from typing import Annotated
from annotated_types import Ge, Gt
from torch import nn
from torch.nn import functional as F
from aelab.recipe import Recipe
from aelab.training import saving

saving.SAVE_SECONDS = 1

class Slow(Recipe):
    def __init__(self, image, *, latent_dim: Annotated[int, Ge(1), "size of the code"] = 2,
                 lr: Annotated[float, Gt(0), "learning rate"] = 1e-3):
        super().__init__()
        self.lr, self.latent_dim = lr, latent_dim
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, latent_dim))
        self.decoder = nn.Sequential(nn.Dropout(0.1), nn.Linear(latent_dim, 64), nn.Unflatten(1, image))

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def loss(self, x, y):
        if self.training and len(x) == 100:
            time.sleep(0 if Path("COUNTED", "fast").exists() else 0.05)
            with Path("COUNTED", str(self.latent_dim)).open("a") as file:
                file.write(".")
        return F.mse_loss(self.decode(self.encode(x)), x), {}
"""
WORDS = ["--data", "digits", "--batch-size", "100", "--epochs", "60", "--launcher", "ray"]
STEPS = 780  # of 60 epochs


class Node:
    """A node of the cluster: `ray start --block`, where it may be with a host name of its own."""

    def __init__(self, place, name, *words):
        place.mkdir(parents=True)
        self.place, self.log = place, place / "log"
        command = [
            sys.executable,
            "-m",
            "ray.scripts.scripts",
            "start",
            "--block",
            *words,
            "--object-store-memory=80000000",
        ]
        if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode == 0:
            command = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *command]
        environment = {
            **os.environ,
            "RAY_USAGE_STATS_ENABLED": "0",
            "XDG_CACHE_HOME": str(place / "cache"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command,
                cwd=place,
                env=environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        until(self.is_up, 180)

    def is_up(self):
        text = self.log.read_text()
        assert self.process.poll() is None, text
        return "Ray runtime started" in text

    def has(self, pid):
        """Whether a process is one of this node's."""
        try:
            return str(self.place).encode() in Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            return False

    def kill(self):
        """At once, with the processes of its tasks, as a machine without power."""
        tasks = [int(path.name) for path in Path("/proc").glob("[0-9]*") if self.has(path.name)]
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in tasks:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        until(lambda: not any(self.has(pid) for pid in tasks), 30)

    def stop(self):
        if self.process.poll() is None:
            self.kill()


@pytest.fixture(scope="module")
def head():
    place = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # the path of a socket has 107 characters at most
    port = free_port()
    node = Node(
        place / "one",
        "one",
        "--head",
        f"--port={port}",
        "--num-cpus=1",
        "--include-dashboard=false",
        f"--temp-dir={place}",
    )
    node.address = next(
        word.strip("'")
        for line in node.log.read_text().splitlines()
        for word in line.partition("--address=")[2:]
        if word
    )
    yield node
    node.stop()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def second(head):
    place = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    node = Node(place / "two", "two", f"--address={head.address}", "--num-cpus=1")
    yield node
    node.stop()
    shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="module")
def mlflow_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server")).start()
    yield server
    server.stop()


@pytest.fixture
def server(mlflow_server):
    yield mlflow_server
    store = Store(mlflow_server.url)
    for info in store.runs():
        store.client.delete_run(info.id)


@pytest.fixture
def slow(here):
    (here / "counted").mkdir()
    (here / "slow.py").write_text(SLOW.replace("COUNTED", str(here / "counted")))
    return "./slow.py"


@pytest.fixture
def start(head):
    """Starts `aelab sweep` on the cluster, in the background."""
    started = []

    def begin(uri, *values):
        started.append(sweep(head, uri, *values))
        return started[-1]

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()


def sweep(head, uri, *values):
    command = [sys.executable, "-m", "aelab", "sweep", "./slow.py", *values, *WORDS]
    command += ["--ray-address", head.address, "--tracking-uri", uri]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(process, code=0, seconds=400):
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == code, out + err
    assert "Traceback" not in err and "raylet" not in (out + err).lower(), "Ray's own words"
    return out, err


def points(store):
    """The runs of the points by the size of their code; one that has just begun may have no parameters yet."""
    runs = [info for info in store.runs() if info.tags["aelab.kind"] == "run" and "latent_dim" in info.params]
    return {info.params["latent_dim"]: info for info in runs}


def taken(here, latent_dim):
    """The steps that were taken, over all attempts; one more is a trial before a run begins."""
    path = here / "counted" / str(latent_dim)
    return len(path.read_text()) if path.exists() else 0


def uploaded(store, info):
    """The steps of the complete checkpoints on the server."""
    there = [entry.path for entry in store.client.list_artifacts(info.id, "checkpoints")]
    return [
        int(path.rpartition("-")[2])
        for path in there
        if "/last-" in path
        and any(f.path.endswith("manifest.json") for f in store.client.list_artifacts(info.id, path))
    ]


def undisturbed(latent_dim, monkeypatch):
    """The same training in this process, in a store of its own."""
    monkeypatch.setattr(saving, "SAVE_SECONDS", saving.SAVE_SECONDS)  # the recipe sets it
    Path("counted", "fast").touch()
    run = aelab.train(
        "./slow.py", data="digits", batch_size=100, epochs=60, latent_dim=latent_dim, tracking_uri="sqlite:///whole.db"
    )
    return run.info.name, Store("sqlite:///whole.db")


def weights(store, info):
    found = checkpoint.newest(store.folder(info) / "checkpoints", "last", pytest.fail)
    return (found.path / "weights.safetensors").read_bytes()


class TestOnACluster:
    pytestmark = on_a_cluster

    def test_a_point_goes_on_elsewhere_when_its_machine_is_lost(self, start, second, server, slow, here, monkeypatch):
        """Neither has the files of the other: the checkpoint comes from the server."""
        store = Store(server.url)
        process = start(server.url, "latent_dim=2,3")

        def there():
            """The point that the second machine trains, once the server has a checkpoint of it."""
            assert process.poll() is None, process.communicate()
            for info in points(store).values():
                pid = info.tags["aelab.process"].split()[1]
                if second.has(pid) and max(uploaded(store, info), default=0) > 50:
                    return info
            return None

        victim = until(there, 300)
        second.kill()
        before = taken(here, victim.params["latent_dim"])
        assert before < STEPS, "it was lost in the middle"
        _, err = ended(process)
        assert "goes on" in err
        done = points(store)
        assert {info.status for info in done.values()} == {"FINISHED"}
        assert len([info for info in store.runs() if info.tags["aelab.kind"] == "run"]) == 2, "none twice"
        after = done[victim.params["latent_dim"]]
        assert after.id == victim.id, "in the same run"
        assert after.tags["aelab.process"].split()[1] != victim.tags["aelab.process"].split()[1]
        assert taken(here, victim.params["latent_dim"]) < STEPS + before - 40, "it did not begin again"
        whole, local = undisturbed(int(victim.params["latent_dim"]), monkeypatch)
        mine, theirs = history(after.name, store), history(whole, local)
        assert all(len(values) == 1 for values in mine.values()), "a point twice"
        assert mine == theirs
        assert weights(store, after) == weights(local, local.find(whole))
        assert len(uploaded(store, after)) == 1, "the older checkpoints are not left on the server"

    def test_ctrl_c_saves_every_run_and_the_same_command_continues(self, start, second, server, slow, here):
        store = Store(server.url)
        process = start(server.url, "latent_dim=2,3")
        until(lambda: min(taken(here, 2), taken(here, 3)) > 50, 300)
        process.send_signal(signal.SIGINT)
        _, err = ended(process, 130, 60)
        assert "same command" in err
        stopped = points(store)
        assert {info.status for info in stopped.values()} == {"KILLED"}
        steps = taken(here, 2)
        time.sleep(1)
        assert steps == taken(here, 2), "the tasks have ended"
        ended(start(server.url, "latent_dim=2,3"))
        done = points(store)
        assert {info.status for info in done.values()} == {"FINISHED"}
        assert {info.id for info in done.values()} == {info.id for info in stopped.values()}
        assert taken(here, 2) <= STEPS + 4 and taken(here, 3) <= STEPS + 4, (
            "no step twice but those that try the recipe"
        )

    def test_a_killed_command_leaves_no_task_and_the_same_command_continues(self, start, server, slow, here):
        """With a file as the store, and `--jobs 1`: the second point waits for the first."""
        uri = "sqlite:///mlflow.db"
        process = start(uri, "latent_dim=2,3", "--jobs", "1")
        until(lambda: taken(here, 2) > 100, 300)
        assert not taken(here, 3)
        process.kill()
        process.communicate()
        until(lambda: taken(here, 2) == (time.sleep(1), taken(here, 2))[1], 60)
        before = points(Store(uri))["2"]
        assert taken(here, 2) < STEPS
        ended(start(uri, "latent_dim=2,3"))
        done = points(Store(uri))
        assert {info.status for info in done.values()} == {"FINISHED"}
        assert done["2"].id == before.id
        assert len([info for info in Store(uri).runs() if info.tags["aelab.kind"] == "run"]) == 2

    def test_more_than_a_machine_has_is_refused_before_anything_is_tracked(self, head, cli, here):
        words = (
            "sweep",
            "stacked",
            "latent_dim=2,3",
            "--data",
            "digits",
            "--launcher",
            "ray",
            "--ray-address",
            head.address,
        )
        answer = cli(*words, "--ray", "cpus=64")
        assert answer.code == 2 and "no machine of the cluster has as many" in answer.err
        assert cli(*words, "--ray", "gpus=0.5").code == 2
        assert not (here / "mlflow.db").exists()

    def test_what_answers_is_no_cluster(self, monkeypatch):
        monkeypatch.setattr(ray_cluster, "CONNECT_SECONDS", 5)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            begun = time.monotonic()
            with pytest.raises(UserError, match="no Ray cluster answers at"):
                ray_cluster.check(f"127.0.0.1:{listening.getsockname()[1]}", {})
            assert time.monotonic() - begun < 30


@pytest.fixture
def ray_is_there(monkeypatch):
    monkeypatch.setattr(ray_cluster, "_is_installed", lambda: True)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--ray", "gpu=1"], "a point has cpus and gpus"),
        (["--ray", "gpus=many"], "write a whole number, or a part of one"),
        (["--ray", "gpus=1.5"], "write a whole number, or a part of one"),
        (["--ray", "cpus=0"], "write a whole number, or a part of one"),
        (["--ray", "gpus=nan"], "write a whole number, or a part of one"),
        (["--ray", "gpus"], "write NAME=VALUE"),
        (["--ray-address", "somewhere"], "write HOST:PORT"),
        (["--ray-address", "here:99999"], "write HOST:PORT"),
        (["--ray-address", "ray://here:10001"], "on a machine of the cluster"),
        (["--ray-address", "no-such-host.invalid:6379"], "no Ray cluster answers at no-such-host.invalid:6379"),
    ],
    ids=str,
)
def test_bad_input(words, says, cli, here, ray_is_there):
    answer = cli("sweep", "stacked", "latent_dim=2,3", "--data", "digits", "--launcher", "ray", *words)
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err.splitlines()) <= 3
    assert not (here / "mlflow.db").exists()


def test_nobody_listens_there(cli, ray_is_there):
    answer = cli("sweep", "stacked", "latent_dim=2,3", "--launcher", "ray", "--ray-address", f"127.0.0.1:{free_port()}")
    assert answer.code == 2
    assert "no Ray cluster answers at 127.0.0.1" in answer.err and "refused" in answer.err


def test_without_ray(cli, monkeypatch):
    monkeypatch.setattr(ray_cluster, "_is_installed", lambda: False)
    answer = cli("sweep", "stacked", "latent_dim=2,3", "--data", "digits", "--launcher", "ray")
    assert answer.code == 2
    assert "pip install 'aelab[ray]'" in answer.err


def test_a_job_needs_no_recipe_file_where_it_is_trained(slow, here):
    """Nor the working folder, nor the environment, of the command."""
    (here / "pictures").mkdir()
    planned = plan(slow, data="digits", latent_dim=3)
    config = replace(planned.config, data="pictures")
    job = Job(config, planned.recipe_file, planned.identity, "latent_dim 3", "slow-", None, "")
    sent = pickle.loads(pickle.dumps(ray_cluster._movable(job)))
    assert sent.config.data == str(here / "pictures")
    assert ray_cluster._movable(replace(job, config=planned.config)).config.data == "digits"
    (here / "slow.py").unlink()
    assert recipe_files.build(sent.recipe_file, (1, 8, 8), {"latent_dim": 3}, 10).latent_dim == 3


def test_data_that_differ_from_those_of_the_command_are_refused(here):
    planned = plan("stacked", data="digits", max_steps=2)
    job = Job(planned.config, planned.recipe_file, "0" * 64, "this one", "stacked-", None, "")
    store = Store()
    assert "not those that the sweep was planned with" in launching.train_job(job, store, lambda _: planned.data, None)
    assert not store.runs()
