"""What the faults are made with: processes that can be killed, a real MLflow server that can be stopped, a disk that fills."""

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from aelab.tracking import Store
from aelab.training import checkpoint

NURSERY = Path(__file__).with_name("nursery.py")
DIGITS = ("--data", "digits", "-q")


@dataclass
class Process:
    """One `aelab` of the nursery."""

    nursery: "Nursery"
    pid: int
    out: Path

    def wait(self, seconds=120):
        """The exit code, negative for a signal."""
        code = self.nursery.ask({"wait": self.pid, "seconds": seconds})
        if code is None:
            pytest.fail(f"it did not end in {seconds} s: {self.err}")
        self.nursery.alive.discard(self.pid)
        return code

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    @property
    def stdout(self):
        return Path(f"{self.out}.out").read_text()

    @property
    def err(self):
        return Path(f"{self.out}.err").read_text()


class Nursery:
    """Starts `aelab` in milliseconds."""

    def __init__(self):
        self.count, self.alive = 0, set()
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, str(NURSERY)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert json.loads(self.process.stdout.readline()) == "ready"

    def ask(self, order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, *words, patch="", folder=None, **env):
        """`aelab WORDS` in the working directory; `patch` is Python that the process runs first."""
        self.count += 1
        names = ("XDG_CACHE_HOME", "MLFLOW_TRACKING_URI", "AELAB_DATA")
        env = {**{name: os.environ[name] for name in names if name in os.environ}, **env}
        cwd = Path(folder or Path.cwd())
        logs = Path(os.environ["XDG_CACHE_HOME"]).parent / "logs"
        logs.mkdir(exist_ok=True)
        out = logs / f"{self.count:04d}"
        for stream in ("out", "err"):  # there to be read before the child has begun
            Path(f"{out}.{stream}").touch()
        order = {"argv": [str(w) for w in words], "cwd": str(cwd), "env": env, "out": str(out), "patch": patch}
        process = Process(self, self.ask(order), out)
        self.alive.add(process.pid)
        return process

    def end_all(self):
        """Kills what a failed test left."""
        for pid in self.alive:
            os.kill(pid, signal.SIGKILL)
            self.ask({"wait": pid, "seconds": 10})
        self.alive.clear()

    def run(self, *words, code=0, **how):
        """The same, to its end, which must have this exit code."""
        process = self.start(*words, **how)
        ended = process.wait()
        assert ended == code, f"exit code {ended}\n{process.stdout}{process.err}"
        return process


def until(condition, seconds=60, process=None):
    """Waits for a condition, and gives what it gave."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not in {seconds} s" + (f": {process.err}" if process else "")
        time.sleep(0.01)
    return found


def run_folder(name, store=None):
    store = store or Store()
    return store.folder(store.find(name))


def final_weights(name, kind):
    found = checkpoint.newest(run_folder(name) / "checkpoints", kind, pytest.fail)
    return (found.path / "weights.safetensors").read_bytes()


def history(name, store=None):
    """Every point of a run but those that tell the time: (key, step) -> values."""
    store = store or Store()
    info = store.find(name)
    found = {}
    for key in info.metrics:
        if "second" not in key:
            for point in store.client.get_metric_history(info.id, key):
                found.setdefault((key, point.step), []).append(point.value)
    return found


def same_run(name, whole):
    """Two runs have the same points, none twice, and the same weights to the bit."""
    a, b = history(name), history(whole)
    assert a.keys() == b.keys(), set(a) ^ set(b)
    assert all(len(values) == 1 for values in a.values()), "a point twice"
    assert a == b
    for kind in ("last", "best"):
        assert final_weights(name, kind) == final_weights(whole, kind), kind


def pictures_of(name):
    """The stepwise pictures of a run: (key, step) as often as they are there."""
    names = [path.name for path in run_folder(name).glob("images/*.webp")]
    return sorted(tuple(name.replace("%", "+").split("+")[0:3:2]) for name in names)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A real MLflow server that keeps the artifacts itself, to be stopped and started."""

    def __init__(self, root):
        self.root, self.port, self.process = root, free_port(), None
        root.mkdir(exist_ok=True)
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self):
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{self.root}/server.db"]
        command += ["--artifacts-destination", str(self.root / "kept"), "--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        self.process = subprocess.Popen(
            [*command, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment,
            start_new_session=True,
        )  # fmt: skip
        until(self.answers, 120)
        return self

    def answers(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2):
                return True
        except OSError:
            return False

    def signal(self, number):
        """To the server and its workers."""
        os.killpg(self.process.pid, number)

    def stop(self):
        if self.process:
            self.signal(signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def small_disk(place, size):
    """A file system of so many bytes at a folder; skips the test where this machine mounts none."""
    place.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(place)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def little_memory(more):
    """The process may take so many bytes more than it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
