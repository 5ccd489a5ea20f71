"""Tracking: what a store refuses, a store that is away, one that does not exist, and what waits to be sent."""

import json
import platform
import shutil
import socket
import sqlite3
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from filelock import FileLock
from mlflow.entities import RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_metric_name

from aelab.errors import UserError
from aelab.evaluation import report
from aelab.tracking import NoStoreError, Store, opening, push, replay, sender, trouble, valid_metric_name
from aelab.tracking.owner import lock_path
from aelab.tracking.sender import stored_pictures
from aelab.tracking.spool import Spool

TAGS = {"aelab.recipe": "linear", "aelab.kind": "run"}
DEAD = f"{platform.node()} 4194304 1"  # no process has this number
DATASET = {"name": "digits", "digest": "1", "source_type": "local", "source": "{}"}
BAD = "train/KL(q||p)"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Store(f"sqlite:///{path}")
    return path


@pytest.fixture
def store(here, empty_database):
    """An empty store in the working directory; `store.said` is what it warned of."""
    shutil.copy(empty_database, here / "mlflow.db")
    said = []
    store = Store(warn=said.append)
    store.said = said
    return store


def begin(store, name="run", **tags):
    return store.create(None, name, params={"a": 1}, tags={**TAGS, **tags})


def left_alone(store, name="run", spool=(), **tags):
    """A run whose process died, with a spool."""
    begun = begin(store, name, **tags)
    begun._sender._stopping = True
    begun._sender._wake.set()
    begun._sender._thread.join()
    begun._release()
    store.client.log_batch(begun.id, tags=[RunTag("aelab.process", DEAD)])
    if spool:
        (begun.folder / "unsent.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in spool))
    return begun


def steps(store, key, name="run"):
    return [point.step for point in store.client.get_metric_history(store.find(name).id, key)]


# what a store refuses


@pytest.mark.parametrize(
    "name",
    ["loss", "a b", "a/b", "a:b", "ü", "a/b-1e16/c", "a-b", "KL(q||p)", "a+b", "a=b", "", "/a", "a/", "a//b", "a/./b",
     "a/../b", "..", ".", "..a", "a..b", "a/..b", "x\ty", "a|b", "a,b", "a'b", "a%b", "日本"],
)  # fmt: skip
def test_a_metric_name_is_accepted_as_by_mlflow(name):
    try:
        _validate_metric_name(name)
    except MlflowException:
        assert not valid_metric_name(name)
    else:
        assert valid_metric_name(name)
    assert valid_metric_name("a" * 250) and not valid_metric_name("a" * 251)


def test_of_a_thousand_one_is_refused():
    batch, taken, refused, posts = [["metric", str(k)] for k in range(1000)], [], [], []

    def post(part):
        posts.append(len(part))
        if ["metric", "617"] in part:
            raise MlflowException("no", 1)
        taken.extend(part)

    with pytest.raises(MlflowException):  # an internal error is no refusal
        trouble.deliver(batch, post, lambda: None, refused.append)
    assert not refused and len(posts) == 1

    def post_refusing(part):
        try:
            post(part)
        except MlflowException:
            raise MlflowException.invalid_parameter_value("no") from None

    trouble.deliver(batch, post_refusing, lambda: None, lambda entry, why: refused.append((entry, why)))
    assert refused == [(["metric", "617"], "no")] and len(posts) <= 22
    assert taken == [entry for entry in batch if entry[1] != "617"]


def test_what_is_refused_is_set_aside_and_all_else_arrives(store):
    being = begin(store)
    for step in range(1500):
        being.metrics({"train/loss": 1.0, BAD: 2.0}, step)
    being.tags({"good": "1", "ba(d": "2", "also": "a\udcffb"})
    being.stepwise_image("wor(se", np.zeros((8, 8, 3), np.uint8), 1)
    being.stepwise_image("good", np.zeros((8, 8, 3), np.uint8), 1)
    being.close("FINISHED")
    info = store.find("run")
    assert info.status == "FINISHED" and set(info.metrics) == {"train/loss"}
    assert steps(store, "train/loss") == list(range(1500))
    assert info.tags["good"] == "1" and info.tags["also"] == "a?b"
    assert stored_pictures(store.client, being.id) == {("good", 1)}
    refusals = [line for line in store.said if "refuses the" in line]
    assert len(refusals) == 3 and sum(f"metric '{BAD}'" in line for line in refusals) == 1, store.said
    kept = [json.loads(line)["entry"] for line in (being.folder / "refused.jsonl").read_text().splitlines()]
    assert [entry[4] for entry in kept if entry[1] == BAD] == list(range(1500))
    assert list(being.folder.glob("refused-*.png")) and not list(being.folder.glob("unsent*"))


def test_a_dataset_that_two_runs_add_at_once_is_logged_by_both(store, monkeypatch):
    asked = []
    log_inputs = store.client.log_inputs

    def refuse_once(run_id, datasets):
        asked.append(run_id)
        if len(asked) == 1:
            raise MlflowException("(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.experiment_id")
        log_inputs(run_id, datasets)

    monkeypatch.setattr(store.client, "log_inputs", refuse_once)
    dataset = {"name": "digits", "digest": "0" * 16, "source_type": "local", "source": "{}"}
    run = store.create(None, "one", params={}, tags=TAGS, dataset=dataset)
    run.close("FINISHED")
    (given,) = store.client.get_run(run.id).inputs.dataset_inputs
    assert len(asked) == 2 and given.dataset.name == "digits"


def test_an_old_spool_comes_free(store, cli):
    stamp = 1_700_000_000_000
    spool = [
        ["metric", BAD, 1.0, stamp, 1], ["metric", "a", 1.0, stamp, 10**30], ["metric", "a", 10**400, stamp, 3],
        ["tags", {"ba(d": "x", "good": "y"}], ["metric", "train/loss", 2.0, stamp, 1], ["metric", BAD, 1.0, stamp, 2],
        ["end", "FINISHED", stamp],
    ]  # fmt: skip
    left_alone(store, spool=spool)
    answer = cli("sync")
    assert answer.code == 0 and "1 run sent" in answer.out, answer.err
    assert answer.err.count("refuses the metric") == 2 and "refuses the tag" in answer.err
    info = store.find("run")
    assert info.status == "FINISHED" and info.metrics == {"train/loss": 2.0} and info.tags["good"] == "y"
    assert "0 runs sent" in cli("sync").out


@pytest.mark.parametrize("content", [b"rubbish" * 100, b"SQLite format 3\0" + bytes(500)])
def test_a_store_that_is_ruined_has_refused_nothing(store, here, content, monkeypatch):
    monkeypatch.setattr(sender, "END_SECONDS", 0.3)
    being = begin(store)
    being.metrics({"train/loss": 1.0}, 1)
    good = (here / "mlflow.db").read_bytes()
    (here / "mlflow.db").write_bytes(content)
    with pytest.raises(UserError, match="aelab sync"):
        being.close("FINISHED")
    being._sender._thread.join()
    assert not (being.folder / "refused.jsonl").exists()
    (here / "mlflow.db").write_bytes(good)
    assert replay(Store(), print) == 1 and steps(Store(), "train/loss") == [1]


@pytest.mark.parametrize("where", ["loss", "step"])
def test_a_recipe_that_names_a_metric_badly_hears_of_it_at_once(cli, store, here, where):
    parts = {"loss": "{}", "step": "{}", where: "{'KL(q||p)': loss}"}
    (here / "mine.py").write_text(f'''"""Names (2026)."""
from torch import nn
from aelab.recipe import Recipe, descend

class Mine(Recipe):
    def __init__(self, image, *, lr: float = 1e-3) -> None:
        super().__init__()
        self.lr, self.net = lr, nn.Conv2d(image[0], image[0], 3, padding=1)
    def loss(self, x, y):
        loss = (self.net(x) - x).square().mean()
        return loss, {parts["loss"]}
    def training_step(self, x, y, adam):
        loss, _ = self.loss(x, y)
        descend(loss, adam)
        return {{"loss": loss, **{parts["step"]}}}
''')
    answer = cli("train", "./mine.py", "--data", "digits", "--epochs", 1)
    assert answer.code == 1 and "cannot be called 'KL(q||p)'" in answer.err and "Traceback" not in answer.err
    assert "epoch" not in answer.err
    assert Store().runs() == []


def test_the_value_of_an_option_is_part_of_a_name():
    values = (1e16, 1e-16, -1.0, 0.5, (400, 200), "a b/(c)")
    names = [next(iter(report.Report({"test/loss": 1.0}).under({"beta": value}).metrics)) for value in values]
    assert all(map(valid_metric_name, names)) and len(set(names)) == len(names), names
    assert names[0] == "test/beta-1e16/loss" and names[3] == "test/beta-0.5/loss"


# what became of a run


@pytest.mark.parametrize("written", ["its process ended without a word", "its process ended unexpectedly"])
def test_a_run_whose_process_died_counts_as_interrupted_in_an_old_store_too(store, written):
    left_alone(store)
    store.mark_dead()
    info = store.find("run")
    assert info.status == "FAILED" and info.interrupted, "just marked"
    store.client.set_tag(info.id, "aelab.reason", f"{written}: killed")
    assert store.find("run").interrupted
    assert store.find("run").tags["aelab.reason"] == "its process ended unexpectedly: killed", "the present words"
    store.client.set_tag(info.id, "aelab.reason", "the loss is not finite")
    assert not store.find("run").interrupted


# a store that is away


class Strange(BaseHTTPRequestHandler):
    """Answers as its server is told."""

    def any(self):
        self.server.asked += 1
        for line in self.server.answer:
            self.wfile.write(line)
        if self.server.hangs:
            self.server.free.wait(30)
        if self.server.resets:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close_connection = True

    do_GET = do_POST = do_PATCH = do_PUT = any  # noqa: N815  # what http.server calls

    def log_message(self, *arguments):
        pass


@contextmanager
def strange_server(*answer, hangs=False, resets=False):
    with ThreadingHTTPServer(("127.0.0.1", 0), Strange) as server:
        server.daemon_threads, server.answer, server.hangs, server.resets = True, answer, hangs, resets
        server.asked, server.free = 0, threading.Event()
        server.handle_error = lambda *arguments: None
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
        server.free.set()
        server.shutdown()


def refusing(status, retry):
    return f"HTTP/1.1 {status} No\r\nRetry-After: {retry}\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".encode()


STRANGE = {
    "429, in an hour": ([refusing(429, 3600)], "HTTP error 429"),
    "429, at a date": ([refusing(429, "Fri, 31 Dec 2099 23:59:59 GMT")], "HTTP error 429"),
    "503, in an hour": ([refusing(503, 3600)], "HTTP error 503"),
    "404": ([refusing(404, 1)], "HTTP error 404"),
    "garbage": ([b"\x00\xff garbage\r\n"], "not a web server"),
    "a web page": ([b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"], "not an MLflow server"),
    "half a number": ([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1"], "connection breaks|not an MLflow server"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_a_strange_server_is_named_at_once(kind, cli):
    answer, words = STRANGE[kind]
    with strange_server(*answer) as (server, url):
        said = cli("train", "linear", "--data", "digits", "--tracking-uri", url)
        assert server.asked <= 4
    assert said.code == 1 and url in said.err and "Traceback" not in said.err and len(said.err.splitlines()) <= 3
    assert any(word in said.err for word in words.split("|")), said.err


def test_a_server_that_hangs_or_resets_is_named(monkeypatch):
    monkeypatch.setattr(opening, "PING_SECONDS", 0.2)
    monkeypatch.setattr(trouble, "SILENCE_SECONDS", 0.05)
    said = []
    for how in ({"hangs": True}, {"resets": True}):
        with strange_server(**how) as (_, url), pytest.raises(UserError, match="no MLflow server answers") as caught:
            Store(url, warn=said.append)
        assert caught.value.code == 1
    assert "still waiting for the store http://127.0.0.1" in said[0], "a line after five seconds"


def test_a_tuple_is_shown_as_it_is_typed(here):
    store = Store()
    params = {"hidden": (400, 300), "one": (400,), "none": (), "names": ("a", "b"), "text": "(a)"}
    run = store.create(None, "one", params=params, tags=TAGS)
    shown = store.get(run.id).params
    assert shown == {"hidden": "400,300", "one": "400", "none": "()", "names": "a,b", "text": "(a)"}


def test_a_new_file_is_given_more_time_than_a_server(here, monkeypatch):
    said = []
    monkeypatch.setattr(trouble, "SILENCE_SECONDS", 0.0)
    Store("sqlite:///quiet.db", warn=said.append)
    assert said == []
    monkeypatch.setattr(trouble, "SILENCE_SECONDS_FILE", 0.0)
    Store("sqlite:///slow.db", warn=said.append)
    assert said == ["still waiting for the store sqlite:///slow.db; Ctrl-C ends it."]


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(sender, "END_SECONDS", 1.0)
    monkeypatch.setattr(sender, "SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.05)


def test_a_store_that_freezes_at_the_end_is_given_up(store, impatient):
    being, free = begin(store), threading.Event()
    real = being._client.log_batch
    being._client.log_batch = lambda *arguments, **named: (free.wait(30), real(*arguments, **named))
    being.metrics({"train/loss": 1.0}, 1)
    with pytest.raises(UserError, match="it did not answer in time") as caught:
        being.close("FINISHED")
    assert "aelab sync" in str(caught.value) and any(
        "waiting for the store to take the rest" in line for line in store.said
    )
    free.set()
    being._sender._thread.join()
    assert replay(Store(), print) == 1
    assert store.find("run").status == "FINISHED" and steps(store, "train/loss") == [1]


def test_a_file_that_never_arrives_is_given_up(store, impatient, monkeypatch):
    monkeypatch.setattr(sender, "END_SECONDS", 2.0)
    being = begin(store)
    being.local = None  # as where a server keeps the files
    being.text("note.txt", "x")

    def away(*arguments):
        raise MlflowException("API request to x failed with exception: Connection refused")

    being._client.log_artifact = away
    with pytest.raises(UserError, match="nothing listens there"):
        being.close("FINISHED")
    assert store.find("run").status == "FINISHED", "the status is told all the same"


def test_a_store_that_comes_back_at_the_end_has_everything(store, monkeypatch):
    monkeypatch.setattr(sender, "RETRY_SECONDS", 0.05)
    being, tries = begin(store), []
    real = being._client.log_batch

    def away_twice(*arguments, **named):
        tries.append(1)
        if len(tries) < 3:
            raise MlflowException("API request to x failed with exception: too many 429 error responses")
        real(*arguments, **named)

    monkeypatch.setattr(being._client, "log_batch", away_twice)
    being.metrics({"train/loss": 1.0}, 1)
    being.close("FINISHED")
    assert steps(store, "train/loss") == [1] and any("HTTP error 429" in line for line in store.said)


def test_a_run_that_is_deleted_in_the_middle_can_be_had_back(store, cli):
    being = begin(store)
    being.metrics({"train/loss": 1.0}, 1)
    being.text("note.txt", "kept")
    store.client.delete_run(being.id)
    being.metrics({"train/loss": 1.0}, 2)
    with pytest.raises(UserError, match="has been deleted in MLflow") as caught:
        being.close("FINISHED")
    assert f"mlflow runs restore --run-id {being.id}" in str(caught.value) and len(str(caught.value).splitlines()) <= 3
    assert (being.folder / "note.txt").exists() and not (being.folder / "refused.jsonl").exists()
    waits = cli("sync")
    assert waits.code == 0 and "0 runs sent" in waits.out and "deleted" in waits.err
    store.client.restore_run(being.id)
    assert "1 run sent" in cli("sync").out
    assert steps(store, "train/loss") == [1, 2] and store.find("run").status == "FINISHED"


def test_a_run_that_is_gone_for_good_is_said_to_be(store):
    being = begin(store)
    with closing(sqlite3.connect("mlflow.db")) as database:
        for table in ("tags", "params", "runs"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", [being.id])
        database.commit()
    being.metrics({"train/loss": 1.0}, 1)
    with pytest.raises(UserError, match="cannot restore it"):
        being.close("FINISHED")
    assert (being.folder / "unsent.jsonl").exists()


# what waits to be sent


def test_a_spool_follows_no_link(here):
    """Neither the file it writes nor the folder that it deletes at the end."""
    (here / "home").mkdir()
    for name in ("rc", "a-1.png"):
        (here / "home" / name).write_text("mine")
    (here / "unsent.jsonl").symlink_to(here / "home" / "rc")
    (here / "unsent").symlink_to(here / "home")
    waiting = Spool(here / "unsent.jsonl")
    waiting.write(["metric", "$(date)", 1.0, 1, 1])
    assert "unsent.jsonl" in waiting.trouble
    waiting.remove()
    assert [(here / "home" / name).read_text() for name in ("rc", "a-1.png")] == ["mine", "mine"]


def test_a_spool_deletes_what_is_its_own(here):
    waiting = Spool(here / "unsent.jsonl")
    waiting.keep("a(b", 1, np.zeros((8, 8, 3), np.uint8))
    waiting.remove()
    assert not (here / "unsent").exists()
    waiting.keep("a", 1, np.zeros((8, 8, 3), np.uint8))
    (here / "unsent" / "holiday.png").touch()
    waiting.remove()
    assert [path.name for path in (here / "unsent").iterdir()] == ["holiday.png"]


@pytest.fixture
def other(here, empty_database):
    (here / "other").mkdir()
    shutil.copy(empty_database, here / "other" / "mlflow.db")
    return f"sqlite:///{here}/other/mlflow.db"


def test_an_offline_run_that_was_killed_is_sent_with_its_true_status(store, other, here):
    local = Store(offline=True)
    left_alone(local, "dead", [["metric", "train/loss", 1.0, 1_700_000_000_000, 7]])
    alive, far = begin(local, "alive"), begin(local, "far")
    far.close()
    local.client.log_batch(far.id, tags=[RunTag("aelab.process", "elsewhere 1 1")])
    said = []
    there = Store(other)
    assert push(local, there, said.append) == 1
    assert there.find("dead").status == "FAILED" and steps(there, "train/loss", "dead") == [7]
    assert there.find("dead").tags["aelab.reason"].startswith("its process ended")
    assert any(line.startswith("alive  is running:") for line in said), said
    assert any("far  is running on elsewhere" in line for line in said), said
    alive.close("FINISHED")
    assert push(local, there, said.append) == 1 and {info.name for info in there.runs()} == {"dead", "alive"}


def test_two_syncs_at_once_do_not_copy_twice(store, other, cli):
    being = begin(Store(offline=True))
    being.close("FINISHED")
    with FileLock("mlflow.db.sync.lock"):  # another process has it
        answer = cli("sync", "--tracking-uri", other)
    assert answer.code == 1 and "another aelab sync" in answer.err and not Store(other).runs()
    assert "1 run sent" in cli("sync", "--tracking-uri", other).out
    assert "0 runs sent" in cli("sync", "--tracking-uri", other).out and len(Store(other).runs()) == 1


def test_what_another_store_refuses_does_not_keep_the_rest_from_it(store, other, monkeypatch):
    local = Store(offline=True)
    for name in ("first", "second"):
        being = begin(local, name)
        being.metrics({"train/loss": 1.0, "odd": 2.0}, 1)
        being.text("big.txt", "too big")
        being.close("FINISHED")
    said = []
    there = Store(other, warn=said.append)
    post, file = there.client.log_batch, there.client.log_artifact

    def picky(run_id, metrics=(), **named):
        if any(metric.key == "odd" for metric in metrics):
            raise MlflowException.invalid_parameter_value("no odd ones")
        post(run_id, metrics=metrics, **named)

    def small(run_id, path, folder):
        if path.endswith("big.txt"):
            raise MlflowException("API request to endpoint x failed with error code 413 != 200. Response body: ''")
        file(run_id, path, folder)

    monkeypatch.setattr(there.client, "log_batch", picky)
    monkeypatch.setattr(there.client, "log_artifact", small)
    assert push(local, there, print) == 2
    assert {info.name: set(info.metrics) for info in there.runs()} == {
        "first": {"train/loss"},
        "second": {"train/loss"},
    }
    assert sum("'odd'" in line for line in said) == 2 and sum("'big.txt'" in line for line in said) == 2


def test_a_killed_run_is_not_called_running(store, cli):
    left_alone(store, "dead")
    assert "failed" in cli("runs", "show", "dead").out.lower()
    left_alone(store, "second")
    answer = cli("runs", "rm", "second")
    assert answer.code == 0 and "mlflow runs restore" in answer.err, answer.err
    being = begin(store, "alive")
    assert "is running" in cli("runs", "rm", "alive").err
    being.close("FINISHED")


def test_a_run_that_ends_while_the_dead_are_looked_for_is_not_marked(store, monkeypatch):
    being = left_alone(store)
    listed = store.runs()
    store.client.set_terminated(being.id, "FINISHED")
    monkeypatch.setattr(store, "runs", lambda *arguments: listed)
    assert store.mark_dead() == [] and store.get(being.id).status == "FINISHED"


def test_a_run_that_another_process_writes_does_not_keep_others_from_the_store(store, cli):
    writing = left_alone(store, "writing", [["metric", "train/loss", 1.0, 1_700_000_000_000, 1]])
    left_alone(store, "waiting", [["metric", "train/loss", 1.0, 1_700_000_000_000, 1]])
    with FileLock(lock_path(writing.folder)):
        answer = cli("sync")
    assert answer.code == 0 and "1 run sent" in answer.out and "writing  is being written" in answer.err
    assert "1 run sent" in cli("sync").out


# a store that is not there, or cannot be opened

READING = [
    ("compare",), ("eval", "vae"), ("sample", "vae"), ("interpolate", "vae"), ("runs", "show", "vae"), ("runs", "rm", "vae"),
    ("resume", "vae"), ("sync",), ("ui", "--no-browser"), ("train", "vae", "--resume", "vae"),
]  # fmt: skip


@pytest.mark.parametrize("words", READING, ids=" ".join)
def test_verbs_that_read_create_no_store(words, cli, here):
    answer = cli(*words)
    assert answer.code == 2 and "each folder keeps its own" in answer.err and not list(here.iterdir())
    answer = cli(*words, "--tracking-uri", f"sqlite:///{here}/new/mlflow.db")
    assert answer.code == 2 and "there is no store at" in answer.err and not list(here.iterdir())
    assert len(answer.err.splitlines()) <= 3


def test_a_list_of_no_runs_creates_no_store(cli, here):
    answer = cli("runs")
    assert answer.code == 0 and "each folder keeps its own" in answer.err
    assert cli("runs", "--json").json == {"runs": []}
    assert cli("runs", "--tracking-uri", "sqlite:///x.db").code == 2 and not list(here.iterdir())


def revised(version):
    """Makes the database one of another MLflow, which has another schema: here, a table less."""

    def change(database):
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"UPDATE alembic_version SET version_num = '{version}'")
            connection.execute("DROP TABLE assessments")
            connection.commit()

    return change


BROKEN = {
    "a folder": (lambda path: (path.unlink(), path.mkdir()), 2, "is a folder"),
    "garbage": (lambda path: path.write_bytes(b"garbage" * 500), 1, "damaged, or not a database"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:5000]), 1, "damaged"),
    "of a newer MLflow": (revised("ffffffffffff"), 1, "a newer MLflow has written it; update MLflow"),
    "of an older MLflow": (revised("bd07f7e963c5"), 1, "then: mlflow db upgrade sqlite:///"),
    "empty": (lambda path: path.write_bytes(b""), 2, "there is no store"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_database_that_cannot_be_opened(kind, store, cli, here):
    corrupt, code, words = BROKEN[kind]
    shutil.copy(here / "mlflow.db", here / "other.db")  # MLflow keeps the other one open
    corrupt(here / "other.db")
    before = (here / "other.db").read_bytes() if (here / "other.db").is_file() else b""
    answer = cli("runs", "--tracking-uri", f"sqlite:///{here}/other.db")
    assert answer.code == code and words in answer.err and "Traceback" not in answer.err, answer.err
    assert not before or (here / "other.db").read_bytes() == before, "it has been migrated"
    assert len(answer.err.splitlines()) <= 3 and "sqlite3" not in answer.err


def test_clients_that_send_the_same_run_at_the_same_moment_leave_one_copy(store, here, monkeypatch):
    """Two copies of a folder, on two machines: both find no copy in the group's store, and both create one."""
    offline = Store(offline=True)
    run = offline.create(None, "sent", params={"a": 1}, tags=TAGS, dataset=DATASET)
    for step in range(3):
        run.metrics({"train/loss": step / 2}, step)
    run.text("note.txt", "kept")
    run.close("FINISHED")
    shutil.copytree(here / "mlruns", here / "second" / "mlruns")
    shutil.copy(here / "mlflow.db", here / "second" / "mlflow.db")
    uri = f"sqlite:///{here}/group.db"
    Store(uri)
    both, newest = threading.Barrier(2), Store.newest

    def together(self, **tags):
        found = newest(self, **tags)
        if "offline_id" in tags and not found:
            both.wait(30)
        return found

    monkeypatch.setattr(Store, "newest", together)

    def send(folder, sent):
        local = Store(f"sqlite:///{folder}/mlflow.db")
        sent.append(push(local, Store(uri), lambda text: None))

    sent = []
    clients = [threading.Thread(target=send, args=(folder, sent)) for folder in (here, here / "second")]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert sent == [1, 1]
    there = Store(uri)
    (copy,) = there.runs()
    assert copy.status == "FINISHED" and steps(there, "train/loss", "sent") == [0, 1, 2]
    assert len(there.client.get_run(copy.id).inputs.dataset_inputs) == 1
    assert (there.folder(copy) / "note.txt").read_text() == "kept"
    assert len(there.runs(view=ViewType.DELETED_ONLY)) == 1


def test_a_locked_database_is_said_to_be_locked(store, cli, here, monkeypatch):
    monkeypatch.setattr(opening, "LOCKED_SECONDS", 0.1)
    with closing(sqlite3.connect(here / "mlflow.db")) as other_program:
        other_program.execute("BEGIN EXCLUSIVE")
        answer = cli("runs")
    assert answer.code == 1 and "locked by another program" in answer.err and len(answer.err.splitlines()) <= 3


@pytest.mark.parametrize(
    "address",
    ["http://a b", "http://", "http://a:99999", "http://[::1", "https://a\tb", "sqlite://", "sqlite:///", "sqlite:///:memory:",
     "mlflow.db", "sqlite:////dev/null", "SQLite:///a%20b.db", "./mlruns"],
)  # fmt: skip
def test_what_can_be_no_address(address, cli, here):
    answer = cli("train", "linear", "--data", "digits", "--tracking-uri", address)
    assert answer.code == 2 and "Traceback" not in answer.err and 1 <= len(answer.err.splitlines()) <= 3, answer.err
    assert not list(here.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("(sqlite3.OperationalError) database is locked\n[SQL: x]", "locked by another program"),
        ("(sqlite3.OperationalError) database or disk is full\n[SQL: x]", "disk is full"),
        ("[Errno 28] No space left on device", "disk is full"),
        ("(sqlite3.OperationalError) attempt to write a readonly database", "read-only"),
        ("API request to x failed with timeout exception HTTPConnectionPool: Read timed out.", "not answer in time"),
        (
            "failed with exception Max retries exceeded (Caused by NewConnectionError: Connection refused)",
            "nothing listens",
        ),
        ("postgresql://me:secret@host/x", "postgresql://host/x"),
    ],
)
def test_what_libraries_say_in_our_words(text, words):
    reason = trouble.reason_of(MlflowException(text))
    assert words in reason and "secret" not in reason and "sqlite3" not in reason


def test_a_missing_store_is_an_error_of_its_own(here, empty_database):
    with pytest.raises(NoStoreError):
        Store(create=False)
    shutil.copy(empty_database, here / "mlflow.db")
    assert Store(create=False).runs() == []


def test_a_database_of_another_program_is_left_as_it_is(cli, here):
    with closing(sqlite3.connect(here / "other.db")) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.commit()
    for words in (("runs",), ("train", "linear", "--data", "digits", "--max-steps", 1)):
        answer = cli(*words, "--tracking-uri", f"sqlite:///{here}/other.db")
        assert answer.code == 2 and "belongs to another program" in answer.err, answer.err
    with closing(sqlite3.connect(here / "other.db")) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("notes",)]


def test_without_a_store_the_list_of_runs_says_so_line_by_line(cli):
    answer = cli("runs")
    assert answer.code == 0 and "\\n" not in answer.err and answer.err.startswith("There are no runs"), answer.err


def test_a_database_whose_process_was_killed_in_the_middle_of_a_write_is_opened(here, tmp_path):
    """SQLite takes back what was half written, for which it must be allowed to write."""
    Store(f"sqlite:///{here}/mlflow.db", create=True)
    killed = tmp_path / "killed"
    killed.mkdir()
    with closing(sqlite3.connect(here / "mlflow.db")) as database:
        database.execute("PRAGMA cache_size = 1")  # so that it writes before the end
        database.execute("BEGIN IMMEDIATE")
        database.execute("UPDATE experiments SET name = 'half done'")
        database.execute("CREATE TABLE filler (content)")
        database.executemany("INSERT INTO filler VALUES (?)", [(bytes(4096),)] * 100)
        for name in ("mlflow.db", "mlflow.db-journal"):
            shutil.copy(here / name, killed / name)
        database.rollback()
    store = Store(f"sqlite:///{killed}/mlflow.db")
    assert "half done" not in {each.name for each in store.client.search_experiments()}
    assert not (killed / "mlflow.db-journal").exists()
