"""Each ailment is found where it is, and not where it is not."""

import math

import pytest
import torch

from aelab import cookbook
from aelab.data import open_data
from aelab.health import ailments


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


def build(name, **options):
    return cookbook.build(cookbook.find(name), (1, 8, 8), options, 10)


def test_a_posterior_that_ignores_some_dimensions(digits):
    recipe = build("vae", latent_dim=6, net="mlp")
    with torch.no_grad():
        last = recipe.encoder[-1]
        last.weight[:6] = 4 * torch.randn_like(last.weight[:6])
        last.weight[:2] = 0
    found = [line for line in ailments(recipe, digits, {}, (1.0, 1.0), 1000) if line.startswith("posterior")]
    assert found == ["posterior collapse: 4 of 6 dimensions of the code are active, the rest is noise"]


def test_reconstructions_out_of_range_or_all_alike(digits):
    recipe = build("linear", latent_dim=3)
    with torch.no_grad():
        recipe.v.weight.zero_()
        recipe.b.fill_(0.5)
    assert ailments(recipe, digits, {}, (1.0, 1.0), 1000) == ["dead code: all reconstructions are alike"]
    with torch.no_grad():
        recipe.v.weight.normal_()
        recipe.b.fill_(-3.0)
    (line,) = ailments(recipe, digits, {}, (1.0, 1.0), 1000)
    assert line.startswith("output range: reconstructions go from -")


def test_samples_that_are_all_alike(digits):
    recipe = build("gan")
    with torch.no_grad():
        recipe.generator[-3].weight.zero_()
    assert ailments(recipe, digits, {}, (1.0, 1.0), 1000) == ["mode collapse: samples vary 0 % as much as images do"]


def test_a_discriminator_that_is_never_deceived(digits):
    recipe = build("gan")
    with torch.no_grad():
        recipe.generator[-3].weight.normal_(0, 3)  # varied samples: that is not what is wrong here
    assert ailments(recipe, digits, {"d_real": 0.6, "d_fake": 0.4}, (1.0, 1.0), 1000) == []
    (line,) = ailments(recipe, digits, {"d_real": 0.99, "d_fake": 0.01}, (1.0, 1.0), 1000)
    assert line == "D is saturated: D(x) = 0.99, D(G(z)) = 0.01, so G learns little"


@pytest.mark.parametrize(
    ("best", "last", "risen"),
    [(1.0, 1.01, False), (1.0, 1.1, True), (-100.0, -99.0, False), (-100.0, -90.0, True), (math.inf, math.inf, False)],
)
def test_a_validation_that_rises(best, last, risen, digits):
    recipe = build("stacked", latent_dim=3)
    found = [line for line in ailments(recipe, digits, {}, (best, last), 1000) if "validation rose" in line]
    assert bool(found) == risen


def test_a_finished_run_says_how_it_is(cli):
    from aelab.tracking import Store

    answer = cli("train", "vae", "--data", "digits", "--epochs", 1, "--net", "mlp", "--name", "ill", "-q")
    tag = Store().find("ill").tags["aelab.health"]
    assert "posterior collapse" in tag and "warning: posterior collapse" in answer.err
    assert f"Health: {tag}." in Store().find("ill").tags["mlflow.note.content"]


def test_a_run_that_is_not_finite_says_so(cli, here):
    from aelab.tracking import Store

    page = here / "boom.py"
    page.write_text(
        '"""x = y (2000)."""\nimport torch\nfrom aelab.recipe import Recipe\n'
        "class Boom(Recipe):\n"
        "    def __init__(self, image, *, lr: float = 1.0) -> None:\n"
        "        super().__init__()\n        self.lr = lr\n        self.w = torch.nn.Parameter(torch.ones(1))\n"
        "    def loss(self, x, y):\n        return (self.w * torch.inf).sum(), {}\n"
    )
    assert cli("train", "./boom.py", "--data", "digits", "--epochs", 1, "--name", "boom", "-q").code == 1
    info = Store().find("boom")
    assert info.status == "FAILED" and info.tags["aelab.health"].startswith("not finite: loss")


def test_a_classifier_that_guesses_and_a_training_that_was_short(digits):
    recipe = build("pretrained", latent_dim=5)
    assert ailments(recipe, digits, {"error": 20.0}, (1.0, 1.0), 1000) == []
    (line,) = ailments(recipe, digits, {"error": 88.0}, (1.0, 1.0), 12)
    assert line == "no better than guessing: 88 % of the validation images are misclassified (after 12 steps only)"
