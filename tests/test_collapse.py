"""The convolutional GAN for colour does not collapse: its samples stay as different from each other as pictures are."""

import math

import pytest
import torch
from driver import settings_of
from torch.nn import functional as F

from aelab import recipe_files
from aelab.data import open_data
from aelab.data.catalog import Raw
from aelab.data.dataset import split
from aelab.training import EpochDone, Settings, Trainer

PICTURES = 5000
SAMPLES = 256


@pytest.fixture(scope="module")
def coloured():
    """Pictures of 3 x 32 x 32: the digits that scikit-learn has, enlarged, each digit and its background in a random colour."""
    draw = torch.Generator().manual_seed(0)
    digits = open_data("digits").train
    which = torch.randint(len(digits), (PICTURES,), generator=draw)
    ink = F.interpolate(digits.batch(which)[0], scale_factor=4, mode="bilinear")  # (N, 1, 32, 32), in [0, 1]
    colour, background = torch.rand(2, PICTURES, 3, 1, 1, generator=draw)
    images = (255 * (ink * colour + (1 - ink) * background)).round().to(torch.uint8)
    return split("coloured", Raw((images, digits.labels[which]), None, tuple("0123456789"), ""), 0, "")


def built(data):
    return recipe_files.build(recipe_files.find("gan"), data.image, {"net": "conv"}, len(data.classes))


def trained(recipe, data, seed, epochs=5, max_steps=None):
    """The metrics of each epoch on validation images, and samples of the weights at the end: those kept, and the last."""
    settings = settings_of("gan", Settings(epochs, 32, seed, "cpu", max_steps=max_steps))
    trainer = Trainer(recipe, data, settings)
    held = [event.val for event in trainer if isinstance(event, EpochDone)]
    nets = trainer.kept.eval(), recipe.eval()
    with torch.no_grad():
        return held, [net.decode(net.sample_prior(SAMPLES)) for net in nets]


def spread(images):
    """The mean distance of two different images."""
    return torch.pdist(images.flatten(1)).mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_a_gan_of_coloured_pictures_does_not_collapse(seed, coloured):
    torch.manual_seed(seed)
    held, drawn = trained(built(coloured), coloured, seed)
    assert len(held) == 5 and all(math.isfinite(value) for metrics in held for value in metrics.values())
    assert min(map(spread, drawn)) > spread(coloured.test.batch(slice(SAMPLES))[0]) / 2
    assert held[-1]["d_real"] - held[-1]["d_fake"] < 0.9, "D takes some for what they are not"


def test_a_generator_that_ignores_its_code_would_be_found(coloured):
    recipe = built(coloured)
    recipe.generator.register_forward_pre_hook(lambda module, inputs: torch.zeros_like(inputs[0]))
    _, drawn = trained(recipe, coloured, 0, max_steps=3)
    assert max(map(spread, drawn)) < spread(coloured.test.batch(slice(SAMPLES))[0]) / 2
