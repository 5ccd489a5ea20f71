"""Pictures, data, recipes, sweeps, terminals, dead processes, odd names and clocks."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress

import numpy as np
import pytest
from machinery import DIGITS, history, run_folder, same_run, until
from PIL import Image

from aelab.tracking import Store


def pictures(folder, count=24, seed=0):
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (count, 8, 8), np.uint8)
    for number, array in enumerate(noise):
        Image.fromarray(array).save(folder / f"{number:03d}.png")


def test_a_bad_picture_is_named_or_counted(aelab, here, tally):
    pictures(here / "album")
    (here / "album" / "007.png").write_bytes(b"no picture")
    whole = (here / "album" / "009.png").read_bytes()
    (here / "album" / "009.png").write_bytes(whole[: len(whole) // 2])
    words = ("train", "linear", "--data", "album", "--epochs", 2, "--batch-size", 4, "--latent-dim", 3)
    process = aelab.run(*words, code=1)
    assert "007.png" in process.err and "epoch" not in process.err
    process = aelab.run(*words, "--skip-bad", "--name", "rest")
    assert "2 of 24 pictures are left out" in process.err and "007.png" in process.err
    info = Store().find("rest")
    assert sum(int(info.params[f"images_{part}"]) for part in ("train", "val", "test")) == 22
    assert "2 of 24" in info.tags["aelab.data_note"]
    aelab.run("eval", "rest", "-q")
    tally("bad picture in a folder", 2)


def test_data_that_changed_are_refused_unless_forced(aelab, here, tally):
    pictures(here / "album")
    words = ("train", "linear", "--data", "album", "--epochs", 100_000, "--batch-size", 4, "--latent-dim", 3)
    process = aelab.start(*words, "--name", "cut", "-q")
    until(lambda: list(here.glob("mlruns/*/*/artifacts/images/*step?0?*.webp")), process=process)
    process.kill(signal.SIGTERM)
    assert process.wait() == 143
    pictures(here / "album", seed=1)
    assert "the data have changed" in aelab.run("resume", "cut", code=1).err
    assert "--force" in aelab.run("eval", "cut", "-q", code=1).err
    forced = aelab.run("eval", "cut", "-q", "--force")
    assert "its fingerprint differs" in forced.err and "test/mse" in forced.stdout
    tally("data changed between run and resume or eval", 2)


BROKEN = {
    "syntax": "def",
    "raises": "raise RuntimeError('no')",
    "exits": "import sys; sys.exit(0)",
    "empty": "",
    "deep": "(" * 3000,
    "loops": "class A(A): pass",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_recipe_leaves_the_others_alone(aelab, here, tally, kind):
    (here / "recipes").mkdir()
    (here / "recipes" / "broken.py").write_text(BROKEN[kind])
    assert "broken" in aelab.run("recipes").stdout
    process = aelab.run("train", "broken", *DIGITS, code=1)
    assert "broken.py" in process.err and "Traceback" not in process.err
    aelab.run("train", "linear", *DIGITS, "--epochs", 1)
    tally("broken recipe")


DIES = """
real = aelab.workflows.following.follow
def dies(trainer, *arguments):
    if trainer.recipe.encode(trainer.data.val.showcase(2)).shape[1] == 3:
        HOW
    real(trainer, *arguments)
aelab.workflows.following.follow = dies
"""


@pytest.mark.parametrize(("how", "code"), [("raise RuntimeError('a fault')", 1), ("os.kill(os.getpid(), 9)", -9)])
def test_a_point_of_a_sweep_dies(aelab, tally, how, code):
    words = ("compare-latent", 2, 3, 4, "--recipe", "linear", *DIGITS, "--epochs", 1)
    process = aelab.run(*words, patch=DIES.replace("HOW", how), code=code)
    states = {info.params["latent_dim"]: info.status for info in Store().runs() if info.parent}
    if code == 1:
        assert states == {"2": "FINISHED", "3": "FAILED", "4": "FINISHED"}
        assert "a fault" in process.err
    finished = {info.id for info in Store().runs() if info.parent and info.status == "FINISHED"}
    process = aelab.run(*words[:-3], *words[-2:])
    assert process.err.count("is done already") == len(finished)
    after = [info for info in Store().runs() if info.parent and info.status == "FINISHED"]
    assert finished < {info.id for info in after} and len(after) == 3
    assert {info.status for info in Store().runs() if info.tags["aelab.kind"] == "sweep"} == {"FINISHED"}
    tally("a point of a sweep dies")


@pytest.mark.parametrize("end", ["| head -1", ">&- 2>&-", "<&- >&-", "2>/dev/full", ">/dev/full 2>/dev/null"])
def test_whatever_the_output_is_the_run_finishes(here, empty_store, tally, end):
    """A real shell: its streams are closed, full, or read by nobody."""
    (here / "mlflow.db").write_bytes(empty_store.read_bytes())
    command = f"{sys.executable} -m aelab train linear --data digits --epochs 2 --name out {end}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
    subprocess.run(["bash", "-c", command], check=False, env=environment, capture_output="/dev" not in end, timeout=120)
    assert Store().find("out").status == "FINISHED"
    assert (here / "mlflow.db").read_bytes().startswith(b"SQLite format 3")
    tally("output closed, full or unread")


def test_a_run_whose_process_is_dead_is_marked(aelab, here, tally):
    words = ("train", "linear", *DIGITS, "--epochs", 100_000)
    dead, alive = (aelab.start(*words, "--name", name) for name in ("dead", "alive"))
    until(lambda: len(list(here.glob("mlruns/*/*/artifacts/images/*step?0?*.webp"))) == 2, process=alive)
    dead.kill()
    dead.wait()
    assert Store().find("dead").status == "RUNNING"
    assert "failed" in aelab.run("runs").stdout
    info = Store().find("dead")
    assert info.status == "FAILED" and "ended unexpectedly" in info.tags["aelab.reason"]
    assert Store().find("alive").status == "RUNNING"
    alive.kill()
    alive.wait()
    aelab.run("train", "linear", *DIGITS, "--epochs", 1)  # the next start does it too
    assert Store().find("alive").status == "FAILED"
    tally("process that died", 2)


def test_a_run_of_another_machine_is_left_alone(aelab, here):
    store = Store()
    run = store.create(None, "far", params={}, tags={"aelab.kind": "run", "aelab.recipe": "linear"})
    store.client.set_tag(run.id, "aelab.process", "another-host 1 1")
    run._release()
    aelab.run("runs")
    assert store.get(run.id).status == "RUNNING"


@pytest.mark.parametrize(
    "name", ["Größe und Ähnliches", "-rf --help", "日本 語/x", "a'b\"c`d$e", "..", "e\u0301 \U0001f600"]
)
def test_odd_names_and_places(aelab, here, tally, name):
    folder = here / name.replace("/", "_").replace("'", "").replace('"', "").replace("..", "dots")
    pictures(folder / "bilder ü")
    words = ("--epochs=2", "--batch-size=4", "--latent-dim=3", "-q")
    aelab.run("train", "linear", f"--name={name}", "--data", "bilder ü", *words, folder=folder)
    os.chdir(folder)
    info = Store().find(name)
    assert info.status == "FINISHED" and info.name == name
    aelab.run("eval", "-q", "--", name, folder=folder)
    aelab.run("sample", "-q", "--", name, folder=folder, code=2)
    aelab.run("interpolate", "-q", "--out=gang ü/x.png", "--", name, folder=folder)
    assert (folder / "gang ü" / "x-linear.png").exists()
    tally("odd names and places")


CLOCK = """
import random as chance
real, monotonic = time.time, time.monotonic
time.time = lambda: real() + chance.choice([-1e7, 0, 3600, -86400, 1e8])
"""


def test_a_clock_that_jumps(aelab, tally):
    words = ("train", "linear", *DIGITS, "--epochs", 8)
    aelab.run(*words, "--name", "whole")
    aelab.run(*words, "--name", "jumpy", patch=CLOCK)
    same_run("jumpy", "whole")
    aelab.run("runs", patch=CLOCK)
    aelab.run("eval", "jumpy", "-q", patch=CLOCK)
    assert float(Store().find("jumpy").tags["aelab.seconds"]) < 60
    assert history("jumpy")
    tally("clock that jumps")


def test_an_offer_on_a_terminal_is_taken(aelab, here):
    """Typed again on a terminal, the same command asks, and Enter goes on."""
    import pty

    words = ("train", "linear", "--data", "digits", "--epochs", "4", "-q")
    stop = """
real = aelab.training.trainer.Trainer.step
def cut(self, *arguments):
    skipped = real(self, *arguments)
    if self.progress.step == 30:
        os.kill(os.getpid(), signal.SIGTERM)
    return skipped
aelab.training.trainer.Trainer.step = cut
"""
    aelab.run(*words, "--name", "cut", patch=stop, code=143)
    ours, theirs = pty.openpty()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "aelab", *words], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    shown = b""
    end = time.monotonic() + 120
    while b"Continue it?" not in shown:
        assert time.monotonic() < end
        shown += os.read(ours, 1000)
    os.write(ours, b"\n")
    with suppress(OSError):  # the other end is closed
        while os.read(ours, 1000):
            pass
    assert process.wait(timeout=120) == 0
    assert Store().find("cut").status == "FINISHED" and len(Store().runs()) == 1
    assert run_folder("cut").exists()


def test_a_store_may_hold_numbers_that_are_none(cli, here):
    store = Store(f"sqlite:///{here}/mlflow.db", create=True)
    tags = {"aelab.kind": "run", "aelab.recipe": "vae", "aelab.seconds": "abc"}
    names = ("late", "never", "elsewhere", "fine")
    params = {"parameters": "abc", "latent_dim": "9" * 5000, "seed": "abc", "labels": "abc", "finetune": "x"}
    made = {
        name: store.client.create_run(store.experiment(None), run_name=name, tags=tags).info.run_id for name in names
    }
    for name in names[:2]:
        for key, value in params.items():
            store.client.log_param(made[name], key, value)
        store.client.log_metric(made[name], "val/error", 1.0)
        store.client.set_terminated(made[name])
    with closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        database.execute("update runs set start_time = 9999999999999999 where run_uuid = ?", (made["late"],))
        database.execute("update runs set start_time = -1 where run_uuid = ?", (made["never"],))
        database.execute("update runs set artifact_uri = '/etc' where run_uuid = ?", (made["elsewhere"],))
    answer = cli("runs")
    assert answer.code == 0 and all(name in answer.out for name in names)
    assert "warning: elsewhere: " in answer.err and "/etc" in answer.err and len(answer.err.splitlines()) == 1
    assert {row["seconds"] for row in cli("runs", "--json").json["runs"] if row["name"] != "late"} == {None}
    answer = cli("compare", "--json")
    assert answer.code == 0 and [row["parameters"] for row in answer.json["runs"]] == [None, None]
    assert cli("compare", "--table", "labels").code == 1
    for name in names[:2]:
        assert cli("runs", "show", name).code == 0
    with closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        database.execute("update runs set start_time = null where run_uuid = ?", (made["never"],))
    answer = cli("runs")
    assert answer.code == 1 and "cannot be read: a run in it has no start time" in answer.err
