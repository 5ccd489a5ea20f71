"""Numbers that are none, and memory that is not there."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from machinery import DIGITS, little_memory, run_folder, same_run
from PIL import Image

from aelab.data import open_data
from aelab.tracking import Store
from aelab.training import checkpoint

POISONED = '''"""A step whose loss or gradient is not a number."""
import torch
from torch import nn
from aelab.recipe import Recipe

class Poisoned(Recipe):
    batch_size = 64

    def __init__(self, image, *, lr: float = 1e-2, at: int = 30, many: int = 1, kind: str = "nan") -> None:
        super().__init__()
        n = image[0] * image[1] * image[2]
        self.lr, self.at, self.many, self.kind = lr, at, many, kind
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(n, 4), nn.BatchNorm1d(4), nn.Linear(4, n), nn.Unflatten(1, image))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def loss(self, x, y):
        if self.training:
            self.seen += 1
            bad = self.at < int(self.seen) + self.missed <= self.at + self.many
            if bad and self.kind == "input":
                x = x * torch.nan
        loss = (self.net(x) - x).square().mean()
        if self.training and bad:
            loss = {"nan": loss * torch.nan, "inf": loss / 0, "gradient": torch.sqrt(loss * 0), "input": loss}[self.kind]
        return loss, {}

    missed = 0

    def training_step(self, x, y, adam):
        try:
            return super().training_step(x, y, adam=adam)
        except ArithmeticError:
            Poisoned.missed += 1
            raise
'''
OFTEN = "aelab.training.saving.SAVE_SECONDS = 0"


@pytest.mark.parametrize("kind", ["nan", "inf", "gradient", "input"])
def test_it_stops_before_the_step_and_keeps_the_last_finite_weights(aelab, here, tally, kind):
    (here / "poisoned.py").write_text(POISONED)
    words = ("train", "./poisoned.py", *DIGITS, "--kind", kind, "--epochs", 3, "--name", "cut")
    process = aelab.run(*words, patch=OFTEN, code=1)
    assert "training stopped before step 31" in process.err and "Traceback" not in process.err
    info = Store().find("cut")
    assert info.status == "FAILED" and "before step 31" in info.tags["aelab.reason"]
    last = checkpoint.newest(run_folder("cut") / "checkpoints", "last", pytest.fail)
    assert last.manifest["step"] == 30
    assert all(torch.isfinite(value).all() for value in last.weights.values())
    assert "of the same command" not in aelab.run(*words, code=1).err, "it would stop there again"
    tally("loss or gradient not finite")


@pytest.mark.parametrize("kind", ["nan", "input"])
def test_so_many_steps_are_passed_over_and_no_more(aelab, here, tally, kind):
    (here / "poisoned.py").write_text(POISONED)
    words = ("train", "./poisoned.py", *DIGITS, "--kind", kind, "--many", 3, "--epochs", 3)
    process = aelab.run(*words, "--skip-nonfinite", 2, "--name", "cut", code=1)
    assert "step 31 is skipped" in process.err and "step 32 is skipped" in process.err
    assert "training stopped before step 33" in process.err
    aelab.run(*words, "--skip-nonfinite", 3, "--name", "through")
    last = checkpoint.newest(run_folder("through") / "checkpoints", "last", pytest.fail)
    assert last.manifest["step"] == 60 and last.state["progress"]["skipped"] == 3
    assert all(torch.isfinite(value).all() for value in last.weights.values())
    tally("steps passed over by --skip-nonfinite")


def test_weights_that_a_recipe_ruins_itself_are_never_kept(aelab, here):
    text = (
        POISONED[: POISONED.index("    missed = 0")].replace("self.missed", "0")
        + """
    def training_step(self, x, y, adam):
        loss, _ = self.loss(x, y)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return {"loss": loss}
"""
    )
    (here / "ruined.py").write_text(text)
    process = aelab.run("train", "./ruined.py", *DIGITS, "--epochs", 3, "--name", "cut", patch=OFTEN, code=1)
    assert "training stopped before step" in process.err
    last = checkpoint.newest(run_folder("cut") / "checkpoints", "last", pytest.fail)
    assert all(torch.isfinite(value).all() for value in last.weights.values())


MEMORY = "resource.setrlimit(resource.RLIMIT_AS, (int(open('/proc/self/statm').read().split()[0]) * 4096 + (600 << 20),) * 2)"
HUNGRY = POISONED.replace("        loss = (", "        torch.empty(1 << 40)\n        loss = (")


@pytest.mark.parametrize("words", [("stacked", "--hidden", "90000,90000"), ("./hungry.py",)], ids=["model", "step"])
def test_no_memory_is_one_line_of_advice(aelab, here, tally, words):
    (here / "hungry.py").write_text(HUNGRY)
    process = aelab.run("train", *words, *DIGITS, "--batch-size", 77, patch=MEMORY, code=1)
    assert "out of memory" in process.err and "--batch-size" in process.err
    assert "Traceback" not in process.err and len(process.err.splitlines()) <= 3
    for info in Store().runs():
        assert info.status == "FAILED" and info.tags["aelab.reason"] == "out of memory"
        assert info.params["batch_size"] == "77", "never changed behind the user's back"
    tally("out of memory (CPU)")


def test_a_resume_after_passed_over_steps_is_exact(aelab, here):
    (here / "poisoned.py").write_text(POISONED.replace("self.missed", "0"))
    words = ("train", "./poisoned.py", *DIGITS, "--epochs", 3, "--skip-nonfinite", 100, "--kind", "inf", "--at", 55)
    stop = """
real = aelab.training.trainer.Trainer.step
def cut(self, *arguments):
    skipped = real(self, *arguments)
    if self.progress.step == 57:
        os.kill(os.getpid(), signal.SIGTERM)
    return skipped
aelab.training.trainer.Trainer.step = cut
"""
    aelab.run(*words, "--name", "cut", patch=stop, code=143)
    aelab.run("resume", "cut", "-q")
    aelab.run(*words, "--name", "whole")
    same_run("cut", "whole")


def album(folder, count, side):
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((side, side, 3), number, np.uint8)).save(folder / f"{number}.png")


@pytest.fixture
def control_group():
    """A control group with half a gigabyte, v1 or v2; skips the test where this machine lets us make none."""
    for root, limit in (("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")):
        group = Path(root) / f"aelab-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / limit).write_text(str(1 << 29))
            yield group
            return
        except OSError:
            continue
        finally:
            group.rmdir()
    pytest.skip("this machine lets us make no control group")


def test_pictures_that_are_more_than_a_control_group_may_have_are_refused(aelab, here, tally, control_group):
    album(here / "album", 12, 20)
    joined = f"open('{control_group}/cgroup.procs', 'w').write(str(os.getpid()))"
    words = ("train", "linear", "--data", "album", "--image-size")
    process = aelab.run(*words, 4000, patch=joined, code=2)
    assert "12 pictures of 4000 x 4000 need 1.2 GB of memory, and 0." in process.err
    aelab.run(*words, 20, "--max-steps", 1, patch=joined)
    tally("more pictures than memory")


def test_a_folder_takes_no_more_memory_than_is_counted(here, tally):
    album(here / "album", 40, 1000)
    open_data("digits")  # what is imported by the first one
    needed = 2 * 40 * 3 * 1000 * 1000 + 12 * 1000 * 1000
    with little_memory(needed + (16 << 20)):
        assert len(open_data(str(here / "album")).train) > 20
    tally("folder in the memory that it is said to need")
