"""Random changes of the training images: each against a plain reference, and that nothing else is touched by them."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from driver import Fit, Interrupted, after, never, settings
from PIL import Image

from aelab import recipe_files
from aelab.data import open_data
from aelab.evaluation import evaluate_loss
from aelab.training import Settings, Trainer, checkpoint
from aelab.training.augmentation import augment, kinds
from aelab.workflows.planning import Config, Plan

KINDS = ["flip", "shift", "crop"]
MANY = 2000  # copies of an image: each result of a shift has a chance of 1/15 or more


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


def copies(image):
    return image.expand(MANY, -1, -1, -1).contiguous()


def counted(results, possible):
    """How many of the results are each of the possible images; every one has to be one of them."""
    equal = torch.stack([(results == image).flatten(1).all(1) for image in possible])  # (possible, MANY)
    assert (equal.sum(0) == 1).all()
    return equal.sum(1)


def test_flip_mirrors_half_of_the_images():
    image = torch.arange(2 * 3 * 5.0).view(2, 3, 5) / 30
    count = counted(augment(copies(image), ["flip"]), [image, image[:, :, [4, 3, 2, 1, 0]]])
    assert count.min() > 0.45 * MANY


def test_shift_moves_by_up_to_an_eighth_and_repeats_the_edge():
    """17 x 8 pixels move by up to 2 rows and by up to 1 column."""
    image = torch.arange(2 * 17 * 8.0).view(2, 17, 8) / 300
    possible = [
        torch.stack([plane[[min(max(i + down, 0), 16) for i in range(17)]] for plane in image])[
            :, :, [min(max(j + right, 0), 7) for j in range(8)]
        ]
        for down, right in itertools.product((-2, -1, 0, 1, 2), (-1, 0, 1))
    ]
    count = counted(augment(copies(image), ["shift"]), possible)
    assert count.min() > 0.6 * MANY / 15


def test_crop_is_a_window_of_the_image_enlarged_bilinearly():
    """An image whose values are the places of its pixels tells which window it was; torch then samples the same one."""
    height, width = 20, 12
    places = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")).float()
    image = torch.cat([places / 100, torch.rand(2, height, width)])
    result = augment(copies(image), ["crop"])
    rows, columns = 100 * result[:, 0, :, 6], 100 * result[:, 1, 6]
    scale = {}
    for name, at, side in (("rows", rows, height), ("columns", columns, width)):
        steps = (at[:, 9] - at[:, 3]) / 6  # in the middle, where no place is beyond the edge
        first = at[:, 3] - 3 * steps - (steps - 1) / 2  # the edge of the window, in pixels from the edge of the image
        scale[name] = steps
        assert 0.8 - 1e-3 < steps.min() < 0.81 and 0.99 < steps.max() < 1 + 1e-3
        assert first.min() > -1e-3 and (first + side * steps).max() < side + 1e-3
        assert (first / (side * (1 - steps)).clamp(min=0.05)).std() > 0.2, "windows lie anywhere"
        middle = 2 * (first + side * steps / 2) / side - 1  # as torch has it: -1 and 1 are the edges of the image
        scale[name + " middle"] = middle
    assert (scale["rows"] - scale["columns"]).abs().max() > 0.1, "the two sides are drawn apart"
    zero = torch.zeros(MANY)
    maps = torch.stack(
        [
            torch.stack([scale["columns"], zero, scale["columns middle"]], 1),
            torch.stack([zero, scale["rows"], scale["rows middle"]], 1),
        ],
        1,
    )
    wanted = F.grid_sample(
        copies(image), F.affine_grid(maps, list(result.shape), align_corners=False), "bilinear", "border", False
    )
    assert torch.allclose(result, wanted, atol=2e-3)
    assert result.min() >= 0 and result.max() <= 1


def test_names_are_applied_in_one_order():
    assert kinds("crop, flip") == kinds("flip,crop") == ("flip", "crop")
    for wrong in ("", "flip,", "Flip", "blur"):
        with pytest.raises(ValueError, match="the augmentations are flip, shift, crop"):
            kinds(wrong)


def test_an_unknown_name_is_one_line(cli):
    answer = cli("train", "linear", "--data", "digits", "--augment", "flip,blur")
    assert answer.code == 2 and len(answer.err.splitlines()) == 1
    assert "the augmentations are flip, shift, crop" in answer.err


def fit(data, folder, **how):
    return Fit("vae", data, folder, settings(3, **how), {"net": "mlp", "hidden": (16,)})


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainer_changes_images_and_not_labels(kind, digits, tmp_path):
    """Every step sees the images of its batch, augmented, with the labels of the batch; without the option nothing is drawn."""
    seen = {}
    for name in (None, kind):
        one = fit(digits, tmp_path / str(name), augment=name)
        steps = seen[name] = []
        one.trainer.step = lambda phase, x, y, one=one, steps=steps: (
            steps.append((x, y)),
            torch.manual_seed(0),
            Trainer.step(one.trainer, phase, x, y),
            torch.manual_seed(len(steps)),
        )[2]
        one.fit(never)
    for number, ((x, y), (changed, labels)) in enumerate(zip(seen[None], seen[kind], strict=True)):
        assert torch.equal(y, labels) and not torch.equal(x, changed)
        if number:  # the state of the first step is that after the recipe was built
            torch.manual_seed(number)
            assert torch.equal(augment(x, [kind]), changed)


def test_validation_and_test_images_are_not_changed(digits, tmp_path):
    """A model that does not learn has the same validation, epoch by epoch, with and without augmentation."""
    plain, changed = (
        Fit("linear", digits, tmp_path / str(kind), settings(2, augment=kind), {"lr": 1e-12})
        for kind in (None, "flip,shift,crop")
    )
    for one in (plain, changed):
        one.fit(never)
    for key, value in plain.run.points.items():
        if key[0].startswith("val/"):
            assert changed.run.points[key] == pytest.approx(value, rel=1e-6)
    assert changed.run.points["train/loss", 1] != pytest.approx(plain.run.points["train/loss", 1], rel=1e-3)
    assert evaluate_loss(changed.recipe, digits.test)["loss"] == pytest.approx(
        evaluate_loss(plain.recipe, digits.test)["loss"], rel=1e-6
    )


@pytest.mark.parametrize("cut", [7, 20, 33])
def test_a_resumed_training_sees_the_same_images(cut, digits, tmp_path):
    whole = fit(digits, tmp_path / "whole", augment="flip,shift,crop")
    whole.fit(never)
    first = fit(digits, tmp_path / "cut", augment="flip,shift,crop")
    with pytest.raises(Interrupted):
        first.fit(after(cut))
    second = fit(digits, tmp_path / "cut", augment="flip,shift,crop")
    torch.manual_seed(99)
    second.restore(checkpoint.newest(tmp_path / "cut/checkpoints", "last", pytest.fail), None)
    second.fit(never)
    weights = second.recipe.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in whole.recipe.state_dict().items())


def test_an_older_run_keeps_its_identity_and_its_configuration(digits):
    """Its settings have no such entry; with one the identity is another."""
    file = recipe_files.find("linear")

    def identity(augment):
        return Plan(Config("linear", Settings(1, 2, augment=augment)), file, digits).identity

    older = Config.from_json({"recipe": "linear", "settings": {"epochs": 1, "batch_size": 2}, "options": {}})
    assert older.settings.augment is None
    assert Plan(older, file, digits).identity == identity(None) != identity("flip")


def test_few_images_are_warned_of_before_the_training(cli, here):
    """Where they are not changed; PCA is named where there are only reconstructions."""
    for number in range(20):
        (here / "pictures").mkdir(exist_ok=True)
        image = torch.randint(256, (8, 8), dtype=torch.uint8)
        Image.fromarray(image.numpy()).save(here / "pictures" / f"{number}.png")
    words = ("--data", "pictures", "--epochs", 1, "-q")
    warning = (
        "warning: 15 images are few to train on: PCA often leaves less error. Show them changed: --augment flip,shift"
    )
    assert warning in cli("train", "stacked", *words).err
    assert "warning: 15 images are few to train on. Show them changed" in cli("train", "gan", *words).err
    for others in (("train", "stacked", *words, "--augment", "flip"),
                   ("train", "stacked", "--data", "digits", "--epochs", 1, "-q"),
                   ("compare-latent", 2, *words)):  # fmt: skip
        answer = cli(*others)
        assert answer.code == 0 and "few to train on" not in answer.err, others
