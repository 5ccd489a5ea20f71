"""Faults that are really made: pytest tests/faults -m faults -n 2. With `--kills N` as many kills at random moments."""

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest
from machinery import Nursery, Server

from aelab.tracking import Store


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=60, help="How many times runs are killed at random moments.")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker(pytest.mark.faults)
            for kind in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):  # what is killed closes nothing
                item.add_marker(pytest.mark.filterwarnings(f"ignore::{kind}"))


@pytest.fixture(scope="session", autouse=True)
def byte_code():
    """Kept, whatever is the habit here: without it each of the many processes compiles torch and mlflow again."""
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session")
def nursery_process():
    nursery = Nursery()
    yield nursery
    nursery.process.stdin.close()
    nursery.process.wait(timeout=20)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A new database: making one takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("store")
    Store(f"sqlite:///{folder}/mlflow.db")
    return folder / "mlflow.db"


@pytest.fixture
def aelab(nursery_process, empty_store, here):
    """Starts `aelab`; an empty store is here."""
    shutil.copy(empty_store, here / "mlflow.db")
    yield nursery_process
    nursery_process.end_all()


@pytest.fixture
def chance(request):
    """Random, but the same in every run of this test."""
    return random.Random(request.node.name)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture
def server(here, mlflow_server, monkeypatch):
    """A real server without runs."""
    if not mlflow_server.process:
        mlflow_server.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server.url)
    yield mlflow_server
    if mlflow_server.process and mlflow_server.answers():
        store = Store(mlflow_server.url)
        for info in store.runs():
            store.client.delete_run(info.id)
    else:
        mlflow_server.stop()
        mlflow_server.process = None


@pytest.fixture
def tally(record_property):
    """Counts how often a fault was made; the table is printed at the end, of all processes that test."""

    def count(fault, times=1):
        record_property("fault", (fault, times))

    return count


def pytest_terminal_summary(terminalreporter):
    tried = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, (fault, times) in report.user_properties:
            tried[fault] += times * (name == "fault")
    for fault, times in tried.items():
        terminalreporter.write_line(f"{times:5}  {fault}")
