"""Shared by the tests: a fresh working directory, and the command line run inside this process."""

import json
import os
import shutil
import signal
from dataclasses import dataclass

# One thread, here and in the processes that tests start: models are tiny, and threads that wait for each other cost most.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import pytest
import torch

import aelab  # before torch: it sets how OpenMP waits
from aelab.cli import main
from aelab.tracking import Store

assert aelab.__version__
torch.set_warn_always(True)  # not only the first time, which would be in one test or another
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background ignores it, and children would inherit that


@dataclass
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test works in an empty folder, without a store, data or cache of the user's."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "AELAB_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    return tmp_path


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A store without runs, to be copied: making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Store(f"sqlite:///{path}")
    return path


@pytest.fixture
def in_a_store(empty_store, here):
    """The test works where somebody has made a store."""
    shutil.copy(empty_store, "mlflow.db")


@pytest.fixture
def cli(monkeypatch, capfd):
    """Types a command line and returns its exit code and what it printed."""

    def run(*words: object) -> Answer:
        monkeypatch.setattr("sys.argv", ["aelab", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Answer(ended.value.code or 0, out, err)

    return run
