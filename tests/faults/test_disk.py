"""The disk: full, read only, or not to be written to."""

import shutil
import subprocess
import time
from contextlib import suppress

import pytest
from machinery import DIGITS, history, run_folder, small_disk, until

from aelab.tracking import Store
from aelab.training import checkpoint

WORDS = ("train", "linear", *DIGITS, "--epochs", 40, "--name", "cut")
SLOW = """
aelab.training.saving.SAVE_SECONDS = 0.2
real = aelab.training.trainer.Trainer.step
aelab.training.trainer.Trainer.step = lambda *a: (time.sleep(0.01), real(*a))[1]
"""


def fill(disk):
    with (disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass
    assert shutil.disk_usage(disk).free == 0


def begun(disk):
    return lambda: list(disk.glob("*/*/artifacts/checkpoints/last-*"))


def test_a_full_disk_that_is_emptied_costs_nothing(aelab, here, tally):
    with small_disk(here / "mlruns", "4m") as disk:
        process = aelab.start(*WORDS, patch=SLOW)
        until(begun(disk), process=process)
        fill(disk)
        until(lambda: "No space left" in process.err, process=process)
        folder = run_folder("cut") / "checkpoints"
        old = checkpoint.newest(folder, "last", pytest.fail).manifest["step"]
        time.sleep(1)
        assert checkpoint.newest(folder, "last", pytest.fail).manifest["step"] == old, "the old one is intact"
        (disk / "ballast").unlink()
        assert process.wait() == 0, process.err
        assert "the checkpoint at step" in process.err
        assert checkpoint.newest(folder, "last", pytest.fail).manifest["step"] == 800
        points = history("cut")
        assert all(len(values) == 1 for values in points.values())
        assert {step for key, step in points if key == "val/loss"} == set(range(1, 41))
        assert Store().find("cut").status == "FINISHED"
        assert len(list(run_folder("cut").glob("images/*.webp"))) == 21
        assert not list(run_folder("cut").glob("unsent*"))
    tally("disk full at save and log, then emptied")


def test_a_disk_that_stays_full_fails_at_the_end_and_keeps_the_old_checkpoint(aelab, here, tally):
    with small_disk(here / "mlruns", "4m") as disk:
        process = aelab.start(*WORDS, patch=SLOW)
        until(begun(disk), process=process)
        fill(disk)
        assert process.wait() == 1
        assert "the last checkpoint could not be written: No space left" in process.err
        assert "Traceback" not in process.err
        assert checkpoint.newest(run_folder("cut") / "checkpoints", "last", pytest.fail)
        assert Store().find("cut").status == "FAILED"
        (disk / "ballast").unlink()
        aelab.run("resume", "cut", "-q")
        assert {step for key, step in history("cut") if key == "val/loss"} == set(range(1, 41))
    tally("disk full to the end, then resumed")


def test_a_full_disk_under_the_database(aelab, here, tally):
    """The points stay in the spool until the database takes them."""
    with small_disk(here / "db", "3m") as disk:
        shutil.move(here / "mlflow.db", disk / "mlflow.db")
        uri = f"sqlite:///{disk}/mlflow.db"
        aelab.run("train", "linear", *DIGITS, "--epochs", 1, "--name", "first", "--tracking-uri", uri)
        process = aelab.start(*WORDS, "--tracking-uri", uri, patch=SLOW)
        until(lambda: len(list(disk.glob("mlruns/*/*/artifacts/checkpoints"))) == 2, process=process)
        fill(disk)
        time.sleep(3)
        (disk / "ballast").unlink()
        assert process.wait() == 0, process.err
        points = history("cut", Store(uri))
        assert all(len(values) == 1 for values in points.values())
        assert {step for key, step in points if key == "val/loss"} == set(range(1, 41))
    tally("disk full under the database, then emptied")


def test_a_folder_that_cannot_be_written_fails_before_the_first_epoch(aelab, here, tally):
    (here / "mlruns").write_text("a file is in the way")
    process = aelab.run("train", "linear", "--data", "digits", code=1)
    assert "cannot write to" in process.err and "epoch" not in process.err and "Traceback" not in process.err
    assert [info.status for info in Store().runs()] == ["FAILED"]
    tally("unwritable folder")


def test_a_read_only_disk_fails_before_the_first_epoch(aelab, here):
    with small_disk(here / "mlruns", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        process = aelab.run("train", "linear", "--data", "digits", code=1)
        assert "Read-only file system" in process.err and "epoch" not in process.err
        assert len(process.err.splitlines()) <= 3


def test_a_store_on_a_read_only_disk_can_be_read(aelab, here, tally):
    aelab.run("train", "linear", *DIGITS, "--epochs", 1, "--name", "kept")
    with small_disk(here / "disk", "4m") as disk:
        (disk / "mlflow.db").write_bytes((here / "mlflow.db").read_bytes())
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        uri = f"sqlite:///{disk}/mlflow.db"
        assert "kept" in aelab.run("runs", "--tracking-uri", uri).stdout
        process = aelab.run("train", "linear", *DIGITS, "--tracking-uri", uri, code=1)
        assert 1 <= len(process.err.splitlines()) <= 3 and "Traceback" not in process.err
    tally("SQLite read only")


def test_a_full_disk_under_a_new_database_is_said_to_be_full(aelab, here, tally):
    with small_disk(here / "db", "256k") as disk:
        process = aelab.run("train", "linear", *DIGITS, "--tracking-uri", f"sqlite:///{disk}/mlflow.db", code=1)
        assert "disk is full" in process.err and len(process.err.splitlines()) <= 3
        assert not list(disk.glob("mlflow.db*.part*")) and not (disk / "mlflow.db").exists()
    tally("disk full under a new database")


def test_a_place_that_cannot_be_written_for_a_new_database(aelab, here, tally):
    with small_disk(here / "db", "256k") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for words, code in ((("train", "linear", *DIGITS), 1), (("runs",), 2)):
            process = aelab.run(*words, "--tracking-uri", f"sqlite:///{disk}/new/mlflow.db", code=code)
            assert 1 <= len(process.err.splitlines()) <= 3 and "Traceback" not in process.err
    tally("new database on a read-only disk", 2)
