"""A trainer driven by hand: it needs no store, no terminal and no file, and says what happens in events."""

import math
import subprocess
import sys
from itertools import pairwise

import pytest
import torch
from driver import Silent

from aelab import recipe_files
from aelab.data import open_data
from aelab.training import DivergedError, EpochDone, PhaseStopped, Settings, StepDone, StepSkipped, Trainer


def trainer(name="linear", options=None, **settings):
    data = open_data("digits")
    torch.manual_seed(0)
    recipe = recipe_files.build(recipe_files.find(name), data.image, options or {}, len(data.classes))
    return Trainer(recipe, data, Settings(**{"epochs": 2, "batch_size": 64, **settings}))


ALONE = """
import io, sys, torch
import aelab
from aelab.training import EpochDone

class Line(aelab.Recipe):
    def __init__(self, image):
        super().__init__()
        self.lr, pixels = 1e-2, image[0] * image[1] * image[2]
        self.net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, 3), torch.nn.Linear(3, pixels))

    def loss(self, x, y):
        return (self.net(x) - x.flatten(1)).square().mean(), {}

data = aelab.open_data("digits")
written = []
sys.addaudithook(lambda event, a: written.append(a) if event == "open" and set(str(a[1])) & set("wax+") else None)
events = list(aelab.Trainer(Line(data.image), data, aelab.Settings(epochs=2, batch_size=64)))
epochs = [event for event in events if isinstance(event, EpochDone)]
assert len(epochs) == 2 and epochs[1].val["loss"] < epochs[0].val["loss"]
assert not written, written
assert not {"mlflow", "matplotlib", "aelab.tracking", "aelab.workflows", "aelab.cli"} & set(sys.modules)
"""


def test_it_trains_without_a_store_a_terminal_or_a_file(here):
    """In a process that has neither output nor input nor imported what would use them."""
    ended = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=here
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
    assert [path.name for path in here.iterdir() if path.name != "cache"] == []


def test_each_step_and_each_epoch_is_an_event():
    events = list(trainer(epochs=2))
    steps = [event for event in events if isinstance(event, StepDone)]
    assert [event.step for event in steps] == list(range(1, 41)), "1,318 images in batches of 64 are 20 steps"
    assert all(set(event.means) == {"loss"} for event in steps), "with so few steps each is a point of the curve"
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert [(event.epoch, event.last) for event in epochs] == [(1, False), (2, True)]
    for number, event in enumerate(epochs):
        part = steps[20 * number : 20 * number + 20]
        assert event.train["loss"] == pytest.approx(sum(step.means["loss"] for step in part) / 20)
        assert {"loss", "mse", "sse", "psnr"} <= set(event.val)
    assert all(event.improved for event in epochs), "without a monitor the last weights are kept"


def test_whoever_iterates_may_stop_and_go_on():
    """A second iteration, and another trainer with the state of the first, end where one that was never stopped ends."""
    whole = trainer("vae", {"net": "mlp", "hidden": (16,)})
    list(whole)
    stopped = trainer("vae", {"net": "mlp", "hidden": (16,)})
    for event in stopped:
        if isinstance(event, StepDone) and event.step == 27:
            break
    state = stopped.state_dict()
    weights = {name: value.clone() for name, value in stopped.recipe.state_dict().items()}
    best = {name: value.clone() for name, value in stopped.best_weights.items()}
    other = trainer("vae", {"net": "mlp", "hidden": (16,)}, epochs=2)
    torch.manual_seed(999)
    other.load_state_dict(state, weights, best)
    assert [event.step for event in other if isinstance(event, StepDone)] == list(range(28, 41))
    torch.set_rng_state(state["rng"])
    list(stopped)
    for one in (stopped, other):
        for name, value in whole.recipe.state_dict().items():
            assert torch.equal(value, one.recipe.state_dict()[name]), name


def test_a_step_that_is_not_finite_is_skipped_or_ends_the_training():
    for allowed in (1, 0):
        one = trainer("stacked", {"hidden": (8,)}, epochs=1, skip_nonfinite=allowed)
        real = one.recipe.loss

        def loss(x, y, one=one, real=real):
            value, parts = real(x, y)
            return (value * math.nan if one.progress.step == 5 else value), parts

        one.recipe.loss = loss
        if allowed:
            (skipped,) = [event for event in one if isinstance(event, StepSkipped)]
            assert (skipped.step, skipped.skipped) == (6, 1)
        else:
            with pytest.raises(DivergedError, match="before step 6"):
                list(one)
        assert all(torch.isfinite(p).all() for p in one.recipe.parameters())


def test_a_phase_that_gets_no_better_says_that_it_stops():
    events = list(trainer("stacked", {"lr": 1e-12, "hidden": (8,)}, epochs=9, patience=2))
    (stopped,) = [event for event in events if isinstance(event, PhaseStopped)]
    epochs = [event for event in events if isinstance(event, EpochDone)]
    assert stopped.epoch == len(epochs) < 9 and stopped.patience == 2
    assert not epochs[-1].improved and not epochs[-2].improved


def test_the_learning_rate_is_set_before_each_step():
    one = trainer(epochs=2, schedule="cosine")
    rates = [one.phases[0].optimizers["adam"].param_groups[0]["lr"] for event in one if isinstance(event, StepDone)]
    assert len(rates) == 40 and all(a > b for a, b in pairwise(rates))


def test_a_stand_in_for_a_run_is_all_that_following_needs(tmp_path):
    """The other side: what becomes of the events."""
    from aelab.training import Checkpoints
    from aelab.workflows.following import follow

    one, run = trainer("vae", {"net": "mlp", "hidden": (16,)}), Silent(tmp_path)
    follow(one, run, Checkpoints(tmp_path, {}), lambda: False)
    assert {key.split("/")[0] for key, _ in run.points} == {"step", "train", "val", "best"}
    assert {step for key, step in run.points if key == "val/elbo"} == {1, 2}
    assert sorted(path.name.split("-")[0] for path in tmp_path.iterdir()) == ["best", "last"]
