"""A group's server: MLflow on a real PostgreSQL, with proxied artifacts. Nothing is lost, nothing is there twice.

Run with: pytest -m postgres. Skipped where PostgreSQL is not installed.
"""

import contextlib
import os
import shutil
import time
from pathlib import Path

import pytest
from group import SECRET, Database, GroupServer, programs
from machinery import DIGITS, Nursery, until
from mlflow.entities import ViewType

from aelab.tracking import Store

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # what is killed closes nothing
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MODELS = "SELECT count(*) FROM logged_models WHERE source_run_id = %s AND lifecycle_stage = 'active'"
EPOCHS, STEPS = 12, 20  # of digits, with batches of 64
SLOWLY = """
real = aelab.training.trainer.Trainer.step
def slow(self, *arguments):
    while self.progress.step == 100 and not os.path.exists('go'):
        time.sleep(0.05)
    return real(self, *arguments)
aelab.training.trainer.Trainer.step = slow
"""
TOGETHER = """
newest = aelab.tracking.Store.newest
def together(self, **tags):
    found = newest(self, **tags)
    if 'offline_id' in tags and not found:  # nobody has sent this run: wait until the other client finds that too
        place = os.path.join(os.environ['XDG_CACHE_HOME'], tags['offline_id'])
        os.makedirs(place, exist_ok=True)
        open(os.path.join(place, str(os.getpid())), 'w').close()
        end = time.time() + 60
        while len(os.listdir(place)) < 2 and time.time() < end:
            time.sleep(0.01)
    return found
aelab.tracking.Store.newest = together
"""


@pytest.fixture(scope="module")
def database():
    database = Database()
    yield database
    database.remove()


@pytest.fixture(scope="module")
def server(database, tmp_path_factory):
    server = GroupServer(f"{database.server}/tracking", tmp_path_factory.mktemp("group")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def nursery():
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    nursery = Nursery()
    yield nursery
    nursery.process.stdin.close()
    nursery.process.wait(timeout=20)
    nursery.process.stdout.close()


@pytest.fixture
def aelab(nursery, server, here, monkeypatch):
    """Starts `aelab` as a member of the group does: with the server's address."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.url)
    yield nursery
    nursery.end_all()


def points(database, run_id):
    """(key, step) of each row that the database has of a run's metrics."""
    return sorted(database.sql("SELECT key, step FROM metrics WHERE run_uuid = %s", values=[run_id]))


def complete(database, server, info):
    """Everything that a training of EPOCHS logs is in the database and among the artifacts, once."""
    found = points(database, info.id)
    assert len(found) == len(set(found)), "a point twice"
    assert {step for key, step in found if key == "val/loss"} == set(range(1, EPOCHS + 1))
    assert {step for key, step in found if key == "step/loss"} == set(range(1, EPOCHS * STEPS + 1))
    files = [path for path in server.kept.rglob("*") if path.is_file() and info.id in path.parts]
    steps = sorted(int(path.name.replace("%", "+").split("+")[2]) for path in files if path.suffix == ".webp")
    assert steps == list(range(EPOCHS + 1)), "each picture once"
    assert {"config.json", "README.md", "weights.safetensors", "state.pt"} <= {path.name for path in files}
    assert info.status == "FINISHED" and "aelab.diagnostics" in info.tags


def test_eight_trainings_go_on_while_server_and_database_are_killed_and_come_back(aelab, server, database, here):
    words = ("train", "linear", "--data", "digits", "--epochs", EPOCHS)
    before = {info.id for info in Store().runs()}
    runs = [aelab.start(*words, "--seed", seed, patch=SLOWLY) for seed in range(8)]
    half = "SELECT count(DISTINCT run_uuid) FROM metrics WHERE key = 'train/loss' AND step = 5 AND run_uuid <> ALL(%s)"
    until(lambda: database.sql(half, values=[sorted(before)]) == [(8,)], 400)
    (here / "go").touch()  # all eight stand before their step 100
    time.sleep(0.5)
    server.kill()
    time.sleep(3)
    server.start()
    time.sleep(2)
    database.stop("immediate")
    database.start()
    for run in runs:
        assert run.wait(300) in (0, 1), run.err  # 1: an end without the store, which is kept for aelab sync
        assert "Traceback" not in run.err and "the store does not answer" in run.err
    aelab.run("sync")
    mine = [info for info in Store().runs() if info.id not in before]
    assert sorted(info.params["seed"] for info in mine) == [str(seed) for seed in range(8)]
    for info in mine:
        complete(database, server, info)


def test_two_clients_send_the_same_offline_runs(aelab, server, database, here):
    before = {info.id for info in Store().runs()}
    for seed in range(2):
        aelab.run("train", "linear", *DIGITS, "--epochs", EPOCHS, "--seed", seed, "--offline")
    offline = Store(f"sqlite:///{here}/mlflow.db")
    second = here / "second"
    second.mkdir()
    shutil.copy(here / "mlflow.db", second / "mlflow.db")  # its runs have their files where those of the first have
    clients = [aelab.start("sync", folder=folder, patch=TOGETHER) for folder in (here, second)]
    assert [client.wait(300) for client in clients] == [0, 0], [client.err for client in clients]
    deleted = [info for info in Store().runs(view=ViewType.DELETED_ONLY) if "aelab.offline_id" in info.tags]
    assert len(deleted) == 2, "both clients have created a copy of each run"
    assert "0 runs sent" in aelab.run("sync").stdout
    mine = [info for info in Store().runs() if info.id not in before]
    assert sorted(info.params["seed"] for info in mine) == ["0", "1"], "a run twice, or none"
    for info in mine:
        complete(database, server, info)
        assert database.sql(MODELS, values=[info.id]) == [(1,)], "one model of each run"
        assert points(database, info.id) == sorted(
            (key, point.step)
            for key in offline.get(info.tags["aelab.offline_id"]).metrics
            for point in offline.client.get_metric_history(info.tags["aelab.offline_id"], key)
        )


def test_an_older_database_is_not_migrated_and_an_empty_one_is_not_filled(aelab, server, database):
    old = database.new("old")
    answer = aelab.run("runs", code=2, MLFLOW_TRACKING_URI=old, PGPASSWORD=SECRET)
    assert (
        "has no tables of MLflow's" in answer.err and "mlflow server --backend-store-uri postgresql://127" in answer.err
    )
    assert database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "old") == [(0,)]
    database.sql("CREATE TABLE alembic_version (version_num VARCHAR(32))", "old")
    database.sql("INSERT INTO alembic_version VALUES ('bd07f7e963c5')", "old")
    answer = aelab.run("train", "linear", *DIGITS, code=1, MLFLOW_TRACKING_URI=old, PGPASSWORD=SECRET)
    assert "was made by an older MLflow" in answer.err
    assert "Make a backup, stop what writes to it, then: mlflow db upgrade postgresql://127" in answer.err
    assert database.sql("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", "old") == [(1,)]
    database.sql("UPDATE alembic_version SET version_num = 'ffffffffffff'", "old")
    assert "a newer MLflow has written it" in aelab.run("runs", code=1, MLFLOW_TRACKING_URI=old, PGPASSWORD=SECRET).err


def test_the_database_itself_lists_but_does_not_train_where_a_server_has_the_artifacts(aelab, server, database):
    aelab.run("train", "linear", *DIGITS, "--epochs", 1, "--name", "direct")
    direct = f"{database.server}/tracking"
    assert "direct" in aelab.run("runs", MLFLOW_TRACKING_URI=direct, PGPASSWORD=SECRET).stdout
    answer = aelab.run("train", "linear", *DIGITS, code=1, MLFLOW_TRACKING_URI=direct, PGPASSWORD=SECRET)
    assert "belongs to an MLflow server" in answer.err
    wrong = aelab.run("runs", code=1, MLFLOW_TRACKING_URI=direct, PGPASSWORD="nonsense")
    assert "the database refuses the password" in wrong.err and "nonsense" not in wrong.err


def test_no_password_is_written_anywhere(aelab, server, database, here):
    known = {"MLFLOW_TRACKING_USERNAME": "someone", "MLFLOW_TRACKING_PASSWORD": SECRET}
    run = aelab.run("train", "vae", "--data", "digits", "--epochs", 2, "--name", "guarded", "--verbose", **known)
    outputs = [run.stdout + run.err]
    with_password = f"{database.server}/tracking".replace("aelab@", f"aelab:{SECRET}@")
    outputs.append(aelab.run("runs", "show", "guarded", MLFLOW_TRACKING_URI=with_password, PGPASSWORD="").stdout)
    outputs.append(aelab.run("runs", MLFLOW_TRACKING_URI=with_password + "x", PGPASSWORD="", code=1).err)
    for text in outputs:
        assert text and SECRET not in text
    for table in ("tags", "params", "experiment_tags", "runs", "datasets"):
        assert not database.sql(f"SELECT 1 FROM {table} t WHERE t::text LIKE %s", values=[f"%{SECRET}%"])
    for path in [*here.rglob("*"), *server.kept.rglob("*"), server.output]:
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in database.log()
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            assert SECRET.encode() not in process.read_bytes(), "in an argument, which every user of the machine sees"
