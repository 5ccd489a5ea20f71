"""Shared by the tests: a fresh working directory, and the command line run inside this process."""

import json
import os
import shutil
import signal
from dataclasses import dataclass
from types import SimpleNamespace

# One thread, here and in the processes that tests start: models are tiny, and threads that wait for each other cost most.
os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

import pytest
import torch

import aelab  # before torch: it sets how OpenMP waits
from aelab.cli import main
from aelab.evaluation import classifier

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


# What takes a second or more and is the same in every test is made once in a process.


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A database as MLflow creates it."""
    from aelab.tracking import opening

    database = tmp_path_factory.mktemp("store") / "mlflow.db"
    opening.create(database)
    return database


@pytest.fixture(autouse=True)
def created_once(empty_store, monkeypatch):
    """A store that is created in this process is a copy of `empty_store`."""
    from aelab.tracking import opening

    def client(uri):
        shutil.copyfile(empty_store, opening.database_of(uri))
        return SimpleNamespace(search_experiments=lambda max_results: [])

    monkeypatch.setattr(opening, "MlflowClient", client)


TRAINED = {}  # weights of the evaluation's classifiers, by shape and training images


@pytest.fixture(autouse=True)
def trained_once(monkeypatch):
    """The classifier of the evaluation is trained once for the same training images."""
    train = classifier._train

    def remembered(net, split, advance):
        key = classifier.EPOCHS, str(net), split.images.numpy().tobytes(), split.labels.numpy().tobytes()
        if key not in TRAINED:
            train(net, split, advance)
            TRAINED[key] = {name: value.clone() for name, value in net.state_dict().items()}
        net.load_state_dict(TRAINED[key])
        advance(classifier.STEPS)

    monkeypatch.setattr(classifier, "_train", remembered)


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
