"""Checkpoints that are not what they were: named, passed over or refused, never believed."""

import json

import pytest
import torch
from machinery import DIGITS, run_folder, same_run, until

from aelab import recipe_files
from aelab.tracking import Store
from aelab.training import checkpoint

WORDS = ("train", "linear", *DIGITS, "--epochs", 6, "--schedule", "constant")
OFTEN = "aelab.training.saving.SAVE_SECONDS = 0.01"
AT_70 = (
    OFTEN
    + """
real = aelab.training.trainer.Trainer.step
def cut(self, *arguments):
    skipped = real(self, *arguments)
    if self.progress.step == 70:
        os.kill(os.getpid(), signal.SIGTERM)
    return skipped
aelab.training.trainer.Trainer.step = cut
"""
)


@pytest.fixture
def stopped(aelab, here):
    """A run that was stopped at step 70, with two checkpoints."""
    aelab.run(*WORDS, "--name", "cut", patch=AT_70, code=143)
    paths = checkpoint.present(run_folder("cut") / "checkpoints", "last")
    assert len(paths) == 2
    return paths


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_newest_one_is_named_and_the_one_before_is_used(aelab, stopped, tally, name, damage):
    file = stopped[0] / name
    content = file.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :]
    file.write_bytes({"flip": flipped, "truncate": content[:middle], "empty": b""}[damage])
    process = aelab.run("resume", "cut")
    assert str(stopped[0]) in process.err and "Trying the one before it" in process.err
    aelab.run(*WORDS, "--name", "whole")
    same_run("cut", "whole")
    tally("newest checkpoint damaged")


def test_no_whole_one_is_refused_until_forced(aelab, stopped, tally):
    for path in stopped:
        (path / "state.pt").write_bytes(b"")
    assert "is damaged" in aelab.run("resume", "cut", code=1).err
    aelab.run("resume", "cut", "--force", "-q")
    aelab.run(*WORDS, "--name", "whole")
    same_run("cut", "whole")
    tally("every checkpoint damaged")


def altered(path, **facts):
    """The checkpoint with other facts in its manifest, and the right sum over them."""
    manifest = {k: v for k, v in json.loads((path / "manifest.json").read_text()).items() if k != "sha256"}
    manifest |= facts
    manifest["sha256"] = checkpoint._digest(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"recipe": "vae"}, "recipe: vae, now linear"),
        ({"image": [1, 28, 28]}, "image: [1, 28, 28], now [1, 8, 8]"),
        ({"versions": {"aelab": "9.9", "torch": torch.__version__}}, "aelab: 9.9, now"),
        ({"options": {"latent_dim": 99}}, "latent_dim: 99, now 10"),
        ({"recipe_sha256": "0"}, "the recipe's source has changed"),
        ({"data_fingerprint": "0"}, "the data have changed"),
        ({"format": 2}, "has format 2; this version of aelab reads 1"),
    ],
    ids=str,
)
def test_another_recipe_shape_or_version_is_refused_before_training(aelab, stopped, tally, facts, says):
    for path in stopped:
        altered(path, **facts)
    before = {path: path.stat().st_mtime_ns for path in stopped}
    process = aelab.run("resume", "cut", code=1)
    assert says in process.err and "Traceback" not in process.err
    assert {path: path.stat().st_mtime_ns for path in stopped} == before, "nothing was touched"
    assert Store().find("cut").status == "KILLED"
    tally("checkpoint of another recipe, shape or version")


def test_a_changed_recipe_is_refused_and_may_be_forced(aelab, here, tally):
    source = recipe_files.find("linear").source
    (here / "mine.py").write_text(source)
    words = ("train", "./mine.py", *DIGITS, "--epochs", 6)
    aelab.run(*words, "--name", "cut", patch=AT_70, code=143)
    (here / "mine.py").write_text(source + "# a word more\n")
    assert "as it is now, is not executed" in aelab.run("resume", "cut", code=2).err
    aelab.run("train", "./mine.py", "--help")  # it is typed, so it may be executed
    assert "the recipe's source has changed" in aelab.run("resume", "cut", code=1).err
    assert "continuing anyway" in aelab.run("resume", "cut", "--force").err
    tally("recipe changed between run and resume")


def test_a_moved_folder_works(aelab, here, stopped):
    """No absolute path is inside a checkpoint."""
    for path in stopped:
        assert str(here).encode() not in b"".join(file.read_bytes() for file in path.iterdir())


def test_changed_options_are_refused_with_the_difference(aelab, stopped):
    process = aelab.run("train", "linear", "--resume", "cut", "--lr", 0.5, "--seed", 4, code=2)
    assert "--lr 0.5, was 0.005" in process.err and "--seed 4, was 0" in process.err
    assert "recipe vae, was linear" in aelab.run("train", "vae", "--resume", "cut", code=2).err
    aelab.run("train", "linear", "--resume", "cut", "--epochs", 6, "--schedule", "constant", "-q")
    assert "there is nothing to resume" in aelab.run("resume", "cut", code=2).err
    assert (
        "cut has 6 epochs; a run can only become longer"
        in aelab.run("train", "--resume", "cut", "--epochs", 3, code=2).err
    )


@pytest.mark.parametrize(
    ("schedule", "epochs", "finished"), [("constant", 6, True), ("constant", 6, False), ("linear", 8, False)]
)
def test_more_epochs_extend_a_run(aelab, here, schedule, epochs, finished):
    """As long as the learning rate has been constant it is the run that was so long from the start."""
    words = ("train", "linear", *DIGITS, "--schedule", schedule)
    aelab.run(*words, "--epochs", epochs, "--name", "cut", patch="" if finished else AT_70, code=0 if finished else 143)
    assert "stretched" not in aelab.run("train", "--resume", "cut", "--epochs", 9, "-q").err
    aelab.run(*words, "--epochs", 9, "--name", "whole")
    same_run("cut", "whole")
    info = Store().find("cut")
    assert info.tags["aelab.lengthened"] == f"from {epochs} to 9 epochs"
    assert info.tags["aelab.identity"] == Store().find("whole").tags["aelab.identity"]


def test_a_phase_that_is_over_cannot_be_extended(aelab):
    words = ("train", "pretrained", *DIGITS, "--hidden", 20, "--latent-dim", 10, "--epochs", 1, "--finetune", 1)
    aelab.run(*words, "--name", "two")
    process = aelab.run("train", "--resume", "two", "--epochs", 3, code=2)
    assert "the phase 'pretrain' is over" in process.err
    assert Store().find("two").status == "FINISHED", "it stays what it was"


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_schedule_says_that_it_is_stretched(aelab, schedule):
    aelab.run("train", "linear", *DIGITS, "--epochs", 2, "--schedule", schedule, "--name", "cut")
    assert f"{schedule} schedule of cut is stretched" in aelab.run("resume", "cut", "--epochs", 3).err


def test_two_processes_cannot_resume_one_run(aelab, stopped, tally):
    slow = """
real = aelab.training.trainer.Trainer.step
aelab.training.trainer.Trainer.step = lambda *a: (time.sleep(0.2), real(*a))[1]
"""
    first = aelab.start("resume", "cut", "-q", patch=slow)
    until(lambda: Store().find("cut").status == "RUNNING", process=first)
    process = aelab.run("resume", "cut", code=1)
    assert f"is being written by another process (process {first.pid} on" in process.err
    assert first.wait() == 0
    aelab.run(*WORDS, "--name", "whole")
    same_run("cut", "whole")
    tally("two processes resume one run")


def test_the_same_command_offers_the_resume(aelab, stopped):
    info = Store().find("cut")
    process = aelab.run(*WORDS, "--name", "again")
    assert f"Continue that one: aelab resume {info.id[:8]}" in process.err
    assert Store().find("again").status == "FINISHED" and Store().find("cut").status == "KILLED"
    assert "of the same command" not in aelab.run(*WORDS, "--name", "third").err, "the last one has finished"


def test_the_same_command_offers_a_run_that_was_killed_before_its_first_checkpoint(aelab, here):
    words = ("train", "linear", *DIGITS, "--epochs", 100_000)
    process = aelab.start(*words, "--name", "cut")
    until(lambda: list(here.glob("mlruns/*/*/artifacts/images/*")), process=process)
    process.kill()
    process.wait()
    again = aelab.start(*words, "--name", "again")
    until(lambda: "of the same command" in again.err, process=again)
    assert f"Continue that one: aelab resume {Store().find('cut').id[:8]}" in again.err


def test_a_lone_damaged_one_is_said_to_be_alone(aelab, stopped):
    (stopped[1] / "manifest.json").write_bytes(b"")
    (stopped[0] / "state.pt").write_bytes(b"")
    err = aelab.run("resume", "cut", code=1).err
    assert err.count("Trying the one before it") == 1 and err.count("There is none before it") == 1
    assert "aelab eval" in err, "the best weights are whole"
