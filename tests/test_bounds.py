"""Numbers that are too large, pictures that cannot be written, batches that are too small: said in a few lines, at once."""

import stat
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from opened import opened

from aelab import recipe_files
from aelab.data import open_data
from aelab.errors import UserError
from aelab.tracking import Store
from aelab.training.settings import Settings
from aelab.workflows.planning import Config, Plan

HUGE = "1" + "0" * 399
TRAIN = ("train", "linear", "--data", "digits", "--max-steps", 2, "-q")
ENGINE = [
    "epochs",
    "batch-size",
    "seed",
    "split-seed",
    "max-steps",
    "patience",
    "warmup",
    "skip-nonfinite",
    "image-size",
]


@pytest.fixture
def no_run(monkeypatch):
    """Nothing is trained, opened or stored."""

    def never(*arguments, **named):
        raise AssertionError("the store was opened")

    monkeypatch.setattr("aelab.tracking.Store.__init__", never)


def refused(answer, *says):
    lines = answer.err.strip().splitlines()
    assert answer.code == 2 and 1 <= len(lines) <= 3 and "Traceback" not in answer.err, answer.err
    assert all(len(line) < 250 for line in lines), answer.err
    for words in says:
        assert words in answer.err


def test_a_seed_of_more_than_32_bits_would_repeat_a_smaller_one():
    """Why they are refused: torch's generator of the CPU takes the last 32 bits."""
    drawn = [torch.rand(2, generator=torch.Generator().manual_seed(seed)) for seed in (3, 2**32 + 3)]
    assert torch.equal(*drawn)


@pytest.mark.parametrize("value", [2**32, 2**64])
@pytest.mark.parametrize("option", ["--seed", "--split-seed"])
def test_a_large_seed_is_refused(cli, no_run, option, value):
    refused(cli(*TRAIN, option, value), option)


def test_the_largest_seed_is_taken_and_no_sweep_goes_past_it(cli):
    assert cli(*TRAIN, "--seed", 2**32 - 1, "--split-seed", 2**32 - 1).code == 0
    sweep = ("compare-latent", 2, "--recipe", "linear", "--data", "digits", "--seed", 2**32 - 2, "--seeds")
    refused(cli(*sweep, 3), "--seeds 3")
    assert cli("sample", "linear", "--seed", 2**32).code == 2


@pytest.mark.parametrize("option", ENGINE)
def test_400_digits_are_refused_by_the_options_of_every_training(cli, no_run, option):
    for value in (HUGE, "-" + HUGE, "9" * 5000):
        refused(cli("train", "linear", "--data", "digits", f"--{option}={value}"), f"--{option}")


@pytest.mark.parametrize(
    ("recipe", "option"), [("linear", "latent-dim"), ("linear", "lr"), ("stacked", "hidden"), ("denoising", "level")]
)
def test_400_digits_are_refused_by_the_options_of_a_recipe(cli, no_run, recipe, option):
    for value in (HUGE, "-" + HUGE, "9" * 5000):
        refused(cli("train", recipe, "--data", "digits", f"--{option}={value}"), f"--{option}")
    if option != "latent-dim":
        refused(cli("compare-latent", 2, "--recipe", recipe, "--set", f"{option}={HUGE}"), option)


def test_every_number_of_every_recipe_says_so_in_a_short_line():
    """Ints of any length, and of any bound, are told from each other without a float."""
    for recipe_file in recipe_files.available().values():
        for option in recipe_files.signature(recipe_file).options:
            for text in (HUGE, "-" + HUGE, "9" * 5000, f"1,{HUGE}"):
                if option.type in (int, float) or "tuple" in str(option.type):
                    with pytest.raises(ValueError, match=r".") as raised:
                        option.parse(text)
                    assert len(str(raised.value)) < 120 and not isinstance(raised.value, OverflowError)


@pytest.mark.parametrize("words", [
    ("compare-latent", HUGE), ("compare-latent", 0), ("compare-latent", 2, "--jobs", HUGE),
    ("compare-latent", 2, "--seeds", HUGE),
    ("eval", "linear", "--samples", HUGE), ("eval", "linear", "--batch-size", HUGE), ("sample", "linear", "-n", HUGE),
    ("sample", "linear", "--seed", HUGE), ("interpolate", "linear", "--pairs", HUGE), ("interpolate", "linear", "--steps", HUGE),
    ("resume", "linear", "--epochs", HUGE), ("ui", "--port", HUGE),
])  # fmt: skip
def test_400_digits_are_refused_by_every_verb(cli, no_run, words):
    rest = ("--recipe", "linear", "--data", "digits") if words[0] == "compare-latent" else ()
    refused(cli(*words, *rest))


def test_an_average_that_is_no_number_is_refused(cli, no_run):
    refused(cli(*TRAIN, "--ema", "nan"), "--ema")


def test_a_batch_of_one_is_refused_before_there_is_a_run(cli):
    answer = cli("train", "stacked", "--data", "digits", "--batch-size", 1, "--max-steps", 2, "-q")
    refused(answer, "--batch-size 1", "stacked", "2 or more")
    assert not Store().runs()


def prepared(recipe):
    config = Config(str(recipe), Settings(3, 1, device="cpu"))
    return Plan(config, recipe_files.find(str(recipe)), open_data("digits")).build()


@pytest.mark.parametrize("recipe", ["gan", "pretrained"])
def test_a_batch_of_one_is_refused_where_a_recipe_normalises_over_it(recipe):
    with pytest.raises(UserError, match=f"--batch-size 1: {recipe}"):
        prepared(recipe)


def test_a_batch_of_one_is_taken_where_nothing_is_normalised_and_the_trial_leaves_no_trace():
    recipe = prepared("linear")
    drawn = torch.rand(3)
    config = Config("linear", Settings(3, 2, device="cpu"))
    again = Plan(config, recipe_files.find("linear"), open_data("digits")).build()
    assert torch.equal(drawn, torch.rand(3)) and recipe.training
    assert all(torch.equal(a, b) for a, b in zip(recipe.parameters(), again.parameters(), strict=True))


MINE = '''"""Normalises, in a training step of its own only, over a batch."""
import torch
from torch import nn
from aelab.recipe import Phase, Recipe, descend

class Mine(Recipe):
    def __init__(self, image, *, lr: float = 1e-2) -> None:
        super().__init__()
        self.lr = lr
        n = image[0] * image[1] * image[2]
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(n, n), nn.BatchNorm1d(n), nn.Unflatten(1, image))
        self.wide = nn.Sequential(nn.Conv2d(image[0], image[0], 1), nn.BatchNorm2d(image[0]))

    def loss(self, x, y):
        return (self.wide(x) - x).square().mean(), {}

    def second(self, x, y, adam):
        loss = (self.net(x) - x).square().mean()
        descend(loss, adam)
        return {"loss": loss}

    def phases(self, epochs):
        return [*super().phases(epochs), Phase("second", 1, self.second, adam=torch.optim.Adam(self.parameters()))][:%s]
'''


@pytest.mark.parametrize("phases", [1, 2])
def test_it_is_the_training_steps_that_are_tried(here, phases):
    """An image of 64 pixels is normalised over these; it is the second phase that has one value for each mean."""
    (here / "mine.py").write_text(MINE % phases)
    with pytest.raises(UserError, match="--batch-size 1: mine") if phases == 2 else nullcontext():
        prepared("./mine.py")


@pytest.mark.parametrize("verb", ["sample", "interpolate"])
@pytest.mark.parametrize(
    ("out", "says"),
    [("/", "is a folder"), ("folder", "is a folder"), (".", "is a folder"), ("file/x.png", "is not a folder"),
     ("x.xyz", "cannot be written as .xyz"), ("x.npy", ".png"), ("n" * 300 + ".png", "too long")],
)  # fmt: skip
def test_a_place_for_a_picture_that_is_none_is_refused_before_any_work(cli, no_run, here, verb, out, says):
    (here / "folder").mkdir()
    (here / "file").touch()
    refused(cli(verb, "linear", "--out", out), says)
    assert sorted(path.name for path in here.iterdir() if path.name not in ("cache", "logs")) == ["file", "folder"]


@pytest.mark.parametrize("out", ["/", "folder", "x.xyz", "file/x.png"])
def test_so_is_one_for_a_curve(cli, no_run, here, out):
    (here / "folder").mkdir()
    (here / "file").touch()
    refused(cli("compare", "--curve", "val/loss", "--out", out))


def test_a_picture_without_an_ending_is_a_png(cli, here):
    assert cli("train", "vae", "--data", "digits", "--max-steps", 2, "-q").code == 0
    answer = cli("sample", "vae", "--out", "new/drawn", "-q")
    assert answer.code == 0 and "new/drawn.png" in answer.out, answer.err
    assert opened("new/drawn.png").format == "PNG"
    assert cli("interpolate", "vae", "--out", "walk", "--pairs", 1, "--steps", 2, "-q").code == 0
    assert opened("walk-linear.png").format == opened("walk-spherical.png").format == "PNG"
    assert cli("sample", "vae", "--out", "drawn.JPG", "-q").code == 0 and opened("drawn.JPG").format == "JPEG"
    answer = cli("compare", "vae", "--curve", "val/loss", "--out", "curve", "-q")
    assert answer.code == 0 and "curve.png" in answer.out and Path("curve.png").exists()


def test_a_folder_in_which_nothing_may_be_written_is_refused(cli, no_run, here, monkeypatch):
    (here / "closed").mkdir(mode=stat.S_IRUSR | stat.S_IXUSR)
    monkeypatch.setattr("os.access", lambda path, mode: Path(path).name != "closed")  # root may write everywhere
    refused(cli("sample", "linear", "--out", "closed/x.png"), "is not writable")
    refused(cli("sample", "linear", "--out", "closed/new/x.png"), "is not writable")
