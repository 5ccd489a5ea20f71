"""The tracker: away at the start, away in the middle, slow, refusing. No step waits, nothing is lost, nothing is doubled."""

import contextlib
import http.client
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from machinery import DIGITS, history, until

from aelab.tracking import Store

WORDS = ("train", "linear", *DIGITS, "--epochs", 15)
PACED = """
real = aelab.training.trainer.Trainer.step
def paced(self, *arguments):
    time.sleep(0.005)
    while self.progress.step == 250 and not os.path.exists('go'):  # until the trouble is over
        time.sleep(0.02)
    return real(self, *arguments)
aelab.training.trainer.Trainer.step = paced
spent = [0.0]
def timed(name):
    inner = getattr(aelab.tracking.RunWriter, name)
    def outer(*a, **k):
        begun = time.perf_counter()
        try:
            return inner(*a, **k)
        finally:
            spent[0] += time.perf_counter() - begun
    setattr(aelab.tracking.RunWriter, name, outer)
for name in ('metrics', 'stepwise_image'):
    timed(name)
follow = aelab.workflows.following.follow
def told(*arguments):
    try:
        follow(*arguments)
    finally:
        sys.stderr.write(f'waited {spent[0]:.3f} s for the tracker\\n')
aelab.workflows.following.follow = told
"""


class Middle(ThreadingHTTPServer):
    """Stands between a run and its server, and answers as it is told: pass, a status, slow, cut (done, but not answered)."""

    daemon_threads = True

    def __init__(self, port):
        self.mode, self.port = "pass", port
        super().__init__(("127.0.0.1", 0), Hop)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def handle_error(self, request, client_address):
        pass


class Hop(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def hop(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        mode = self.server.mode
        if mode in ("500", "403", "429", "503"):
            self.answer(int(mode), b"no")
            return
        if mode == "slow":
            time.sleep(3)
        server = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        server.request(
            self.command, self.path, body, {k: v for k, v in self.headers.items() if k.lower() != "connection"}
        )
        answer = server.getresponse()
        content = answer.read()
        if mode == "cut":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        self.answer(answer.status, content, answer.getheader("Content-Type"))

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = hop  # noqa: N815  # what http.server calls

    def answer(self, status, content, kind=None):
        self.send_response(status)
        self.send_header("Content-Type", kind or "text/plain")
        self.send_header("Content-Length", str(len(content)))
        if status in (429, 503):
            self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


def complete(name, epochs=15):
    """Every point and picture of the run is in the store, once."""
    store = Store()
    info = store.find(name)
    points = history(name, store)
    assert all(len(values) == 1 for values in points.values()), "a point twice"
    assert {step for key, step in points if key == "val/loss"} == set(range(1, epochs + 1))
    assert {step for key, step in points if key == "step/loss"} == set(range(1, epochs * 20 + 1))
    names = [Path(entry.path).name for entry in store.client.list_artifacts(info.id, "images")]
    steps = sorted(int(name.replace("%", "+").split("+")[2]) for name in names if name.endswith(".webp"))
    assert steps == list(range(epochs + 1)), "each picture once"
    assert {"aelab.diagnostics", "mlflow.note.content"} <= info.tags.keys()
    kept = {Path(entry.path).name for entry in store.client.list_artifacts(info.id)}
    assert {"README.md", "checkpoints", "config.json", "images", "pictures", "recipe"} <= kept
    return info


def waited(process):
    (line,) = [line for line in process.err.splitlines() if line.startswith("waited ")]
    return float(line.split()[1])


def in_its_third_epoch(process, cache):
    until(lambda: list(cache.glob("aelab/runs/*/config.json")), process=process)
    until(
        lambda: [p for p in cache.glob("aelab/runs/*/unsent.jsonl") if '"val/loss", ' in p.read_text()], process=process
    )


def test_away_at_the_start_it_fails_in_seconds_and_names_the_address(aelab, tally):
    with socket.socket() as silent:  # takes connections and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        for port in (silent.getsockname()[1], 9):
            begun = time.monotonic()
            process = aelab.run(*WORDS, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}", code=1)
            assert time.monotonic() - begun < 10
            assert f"http://127.0.0.1:{port}" in process.err and "--offline" in process.err
            tally("tracker away at the start")


def test_offline_and_then_sync(aelab, here, server, tally):
    others = len(Store().runs())  # of other tests
    server.stop()
    aelab.run(*WORDS, "--offline", "--name", "alone")
    aelab.run("compare-latent", 2, 3, "--recipe", "linear", *DIGITS, "--epochs", 1, "--offline")
    local = Store(offline=True)
    whole = history("alone", local)
    aelab.run("sync", code=1)
    server.start()
    assert "4 runs sent" in aelab.run("sync").stdout
    assert "0 runs sent" in aelab.run("sync").stdout
    complete("alone")
    assert history("alone") == whole
    there, here_ = Store().find("alone"), local.find("alone")
    assert there.params == here_.params and there.status == "FINISHED" and there.ended == here_.ended
    (sweep,) = (
        info for info in Store().runs() if info.tags["aelab.kind"] == "sweep" and info.tags.get("aelab.offline_id")
    )
    assert len([info for info in Store().runs() if info.parent == sweep.id]) == 2
    assert len(Store().runs()) == others + 4
    aelab.run("resume", "alone", "--epochs", 16, "-q", "--tracking-uri", local.uri)
    assert "1 run sent" in aelab.run("sync").stdout
    complete("alone", 16)
    assert len(Store().runs()) == others + 4, "the same copy has become longer"
    tally("trained offline, then synced", 4)


@pytest.mark.parametrize("mode", ["stopped", "frozen", "500", "403", "429", "503", "slow", "cut"])
def test_trouble_in_the_middle_costs_nothing(aelab, here, server, tally, mode):
    middle = Middle(server.port)
    url = f"http://127.0.0.1:{middle.server_address[1]}"
    process = aelab.start(*WORDS, "--name", "run", patch=PACED, MLFLOW_TRACKING_URI=url)
    in_its_third_epoch(process, here / "cache")
    if mode == "stopped":
        server.stop()
        until(lambda: "does not answer" in process.err, process=process)
        server.start()
    elif mode == "frozen":
        server.signal(signal.SIGSTOP)
        time.sleep(6)
        server.signal(signal.SIGCONT)
    else:
        middle.mode = mode
        time.sleep(5)
        middle.mode = "pass"
    (here / "go").touch()
    assert process.wait() == 0, process.err
    assert waited(process) < 1
    assert complete("run").status == "FINISHED"
    assert not list(here.glob("cache/aelab/runs/*/unsent*"))
    middle.shutdown()
    tally(f"tracker in mid-run: {mode}")


def test_away_to_the_end_it_is_sent_by_sync(aelab, here, server, tally):
    process = aelab.start(*WORDS, "--name", "run", patch=PACED)
    in_its_third_epoch(process, here / "cache")
    server.stop()
    (here / "go").touch()
    assert process.wait() == 1
    assert "aelab sync" in process.err and "does not answer" in process.err and "Traceback" not in process.err
    server.start()
    assert "1 run sent" in aelab.run("sync").stdout
    assert complete("run").status == "FINISHED"
    assert "0 runs sent" in aelab.run("sync").stdout
    tally("tracker away to the end, then synced")


@pytest.mark.parametrize("mode", ["frozen", "429"])
def test_a_tracker_that_is_lost_at_the_end_is_waited_for_and_given_up(aelab, here, server, tally, mode):
    middle = Middle(server.port)
    short = PACED + "\naelab.tracking.sender.END_SECONDS = 8"
    url = f"http://127.0.0.1:{middle.server_address[1]}"
    process = aelab.start(*WORDS, "--name", "run", patch=short, MLFLOW_TRACKING_URI=url)
    in_its_third_epoch(process, here / "cache")
    if mode == "frozen":
        server.signal(signal.SIGSTOP)
    else:
        middle.mode = mode
    (here / "go").touch()
    begun = time.monotonic()
    assert process.wait() == 1
    assert time.monotonic() - begun < 40
    assert "waiting for the store to take the rest" in process.err and "aelab sync" in process.err
    server.signal(signal.SIGCONT)
    middle.mode = "pass"
    assert "1 run sent" in aelab.run("sync", MLFLOW_TRACKING_URI=url).stdout
    assert complete("run").status == "FINISHED"
    middle.shutdown()
    tally(f"tracker lost at the end: {mode}")


def test_a_run_that_is_deleted_on_the_server_is_restored(aelab, here, server, tally):
    process = aelab.start(*WORDS, "--name", "run", patch=PACED)
    in_its_third_epoch(process, here / "cache")
    store = Store()
    info = store.find("run")
    store.client.delete_run(info.id)
    until(lambda: "has been deleted in MLflow" in process.err, process=process)
    (here / "go").touch()
    assert process.wait() == 1
    assert f"mlflow runs restore --run-id {info.id}" in process.err and "Traceback" not in process.err
    store.client.restore_run(info.id)
    assert "1 run sent" in aelab.run("sync").stdout
    assert complete("run").status == "FINISHED"
    tally("run deleted in mid-training, then restored")


def test_a_bad_name_over_http_keeps_nothing_back(aelab, here, server, tally):
    bad = """
real = aelab.workflows.following._end_epoch
def more(event, trainer, run, bar):
    run.metrics({'KL(q||p)': 1.0}, event.epoch)
    run.tags({'ba(d': 'x'})
    real(event, trainer, run, bar)
aelab.workflows.following._end_epoch = more
"""
    process = aelab.run(*WORDS, "--name", "run", patch=bad)
    assert process.err.count("refuses the metric 'KL(q||p)'") == 1
    assert complete("run").status == "FINISHED"
    assert not list(here.glob("cache/aelab/runs/*/unsent*"))
    assert "0 runs sent" in aelab.run("sync").stdout
    tally("name refused by a server")


def test_two_syncs_at_once_and_a_killed_offline_run(aelab, here, server, tally):
    aelab.run(*WORDS, "--offline", "--name", "alone")
    process = aelab.start(*WORDS, "--offline", "--name", "dead", patch=PACED)
    until(lambda: [p for p in here.glob("mlruns/*/*/artifacts/unsent.jsonl") if '"val/loss", ' in p.read_text()])
    process.kill()
    assert process.wait() == -signal.SIGKILL
    both = [aelab.start("sync"), aelab.start("sync")]
    codes = sorted(process.wait() for process in both)
    assert codes in ([0, 0], [0, 1]), [process.err for process in both]
    assert codes == [0, 0] or any("another aelab sync" in process.err for process in both)
    runs = Store().runs()
    assert sorted((info.name, info.status) for info in runs) == [("alone", "FINISHED"), ("dead", "FAILED")]
    assert history("dead") == history("dead", Store(offline=True)) and "val/loss" in Store().find("dead").metrics
    tally("two syncs at once", 2)
    tally("offline run killed, then synced")


def test_killed_while_the_tracker_is_away(aelab, here, server, tally):
    process = aelab.start(*WORDS, "--name", "run", patch=PACED + "\naelab.training.saving.SAVE_SECONDS = 0.1")
    in_its_third_epoch(process, here / "cache")
    server.stop()
    time.sleep(2)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    server.start()
    aelab.run("resume", "run", "-q")
    assert complete("run").status == "FINISHED"
    tally("killed while the tracker is away, then resumed")


def test_told_to_stop_while_the_tracker_is_frozen(aelab, here, server, tally):
    process = aelab.start(*WORDS, "--name", "run", patch=PACED)
    in_its_third_epoch(process, here / "cache")
    server.signal(signal.SIGSTOP)
    time.sleep(3)
    begun = time.monotonic()
    process.kill(signal.SIGTERM)
    (here / "go").touch()  # the step that it is in may end
    assert process.wait() == 143
    assert time.monotonic() - begun < 10
    server.signal(signal.SIGCONT)
    aelab.run("sync")
    assert Store().find("run").status == "KILLED"
    tally("SIGTERM while the tracker is frozen")


def test_eight_runs_at_once_on_a_new_store(aelab, here, tally):
    (here / "mlflow.db").unlink()
    many = [aelab.start("train", "linear", *DIGITS, "--epochs", 2, "--name", f"run-{n}") for n in range(8)]
    assert [process.wait() for process in many] == [0] * 8, [process.err for process in many]
    runs = Store().runs()
    assert sorted(info.name for info in runs) == [f"run-{n}" for n in range(8)]
    assert {info.status for info in runs} == {"FINISHED"}
    assert {len(history(info.name)) for info in runs} == {len(history("run-0"))}
    tally("eight runs at once on a new store")


def test_a_database_that_is_locked(aelab, here, tally):
    process = aelab.start(*WORDS, "--name", "run", patch=PACED)
    until(lambda: list(here.glob("mlruns/*/*/artifacts/unsent.jsonl")), process=process)
    with contextlib.closing(sqlite3.connect(here / "mlflow.db", timeout=30)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(4)
        database.rollback()
    (here / "go").touch()
    assert process.wait() == 0, process.err
    assert waited(process) < 1
    complete("run")
    tally("SQLite locked")


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000], ids=["empty", "rubbish"])
def test_a_database_that_is_corrupt(aelab, here, tally, content):
    (here / "mlflow.db").write_bytes(content)
    process = aelab.start("train", "linear", *DIGITS, "--epochs", 1)
    assert process.wait() == (1 if content else 0), process.err
    assert "Traceback" not in process.err and (not content or "mlflow.db" in process.err)
    tally("SQLite corrupt")


def test_a_database_that_is_ruined_in_mid_run(aelab, here, tally):
    process = aelab.start(*WORDS, "--name", "run", patch=PACED)
    until(lambda: list(here.glob("mlruns/*/*/artifacts/images/*step?2?*.webp")), process=process)
    with closing(sqlite3.connect(here / "mlflow.db", timeout=60)) as lock:
        lock.execute("BEGIN IMMEDIATE")  # nothing comes in between the copy and the ruin
        good = (here / "mlflow.db").read_bytes()
        (here / "mlflow.db").write_bytes(b"rubbish" * 100_000)
    time.sleep(3)
    (here / "mlflow.db").write_bytes(good)
    (here / "go").touch()
    code = process.wait()
    assert "Traceback" not in process.err
    if code:
        aelab.run("sync")
    complete("run")
    tally("SQLite corrupt in mid-run, then restored")
