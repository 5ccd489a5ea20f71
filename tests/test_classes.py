"""Images of a class that is asked for: trained, drawn, interpolated and evaluated."""

import math

import pytest
import torch
from opened import opened
from torch import nn

import aelab
from aelab import recipe_files
from aelab.data import Split, open_data
from aelab.evaluation import Report, conditional
from aelab.evaluation.classifier import class_metrics, classifier_of
from aelab.evaluation.conditional import of_classes
from aelab.recipe import Conditional, Recipe

TINY = {"data": "digits", "epochs": 1, "latent_dim": 3}
CONDITIONAL = ["gan", "vae"]


def built(name, **options):
    torch.manual_seed(0)
    return recipe_files.build(recipe_files.available()[name], (1, 8, 8), {"conditional": True, **options}, 10)


class Real(Recipe):
    """Draws the training images themselves; a share of them is of a class that was not asked for."""

    conditional = True

    def __init__(self, train: Split, wrong: float = 0.0) -> None:
        super().__init__()
        self.weight, self.train_split, self.wrong = nn.Parameter(torch.zeros(1)), train, wrong

    def sample_prior(self, n):
        return self.sample_class(torch.randint(10, (n,)))

    def sample_class(self, y):
        shown = torch.where(torch.rand(len(y)) < self.wrong, (y + 1) % 10, y)
        own = [torch.nonzero(self.train_split.labels == k).flatten() for k in shown]
        return torch.stack([some[torch.randint(len(some), ())] for some in own])[:, None].double()

    def decode(self, z):
        return self.train_split.batch(z[:, 0].long())[0]


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_code_ends_with_its_class(name):
    recipe = built(name)
    assert isinstance(recipe, Conditional) and recipe.conditional
    y = torch.tensor([3, 0, 9])
    z = recipe.sample_class(y)
    assert torch.equal(z[:, -10:].argmax(1), y) and torch.equal(z[:, -10:].sum(1), torch.ones(3))
    assert torch.isin(z[:, -10:], torch.tensor([0.0, 1.0])).all() and z[:, :-10].std() > 0.5
    many = recipe.sample_prior(4000)
    share = many[:, -10:].mean(0)
    assert torch.allclose(share, torch.full((10,), 0.1), atol=0.02), "the prior draws every class"
    assert not built(name, conditional=False).conditional


def test_without_labels_a_code_of_the_gan_ends_with_one_of_its_modes():
    z = built("gan", conditional=False, modes=7, latent_dim=3).sample_prior(4000)
    assert z.shape == (4000, 10) and torch.allclose(z[:, 3:].mean(0), torch.full((7,), 1 / 7), atol=0.03)
    assert built("gan", conditional=False, modes=0, latent_dim=3).sample_prior(5).shape == (5, 3)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_the_class_reaches_the_image(name):
    recipe = built(name).eval()
    z = recipe.sample_class(torch.zeros(1, dtype=torch.long)).repeat(10, 1)
    z[:, -10:] = torch.eye(10)
    assert torch.pdist(recipe.decode(z).flatten(1)).min() > 0, "one z, ten classes, ten images"


def test_the_discriminator_sees_the_class():
    recipe = built("gan", noise=0.0).eval()
    x = torch.rand(1, 1, 8, 8).expand(10, -1, -1, -1)
    assert len(set(recipe.discriminate(x, torch.arange(10)).flatten().tolist())) == 10


def test_the_bound_of_a_conditional_vae_is_one_of_all_images():
    """The elbo and the importance-weighted bound are of log p(x), as those of an unconditional one, never of log p(x|y)."""
    recipe = built("vae", latent_dim=1, net="mlp", hidden=(16,)).eval()
    x, y = recipe.observe(torch.rand(4, 1, 8, 8)), torch.arange(4)
    with torch.no_grad():
        grid = torch.linspace(-6, 6, 241)
        z = grid[:, None]
        log_prior = -(grid**2) / 2 - math.log(2 * math.pi) / 2 + math.log(float(grid[1] - grid[0]))
        exact = []
        for image in x:
            terms = [
                recipe.log_likelihood(image.expand(len(z), -1, -1, -1), recipe.with_class(z, torch.full((len(z),), k)))
                + log_prior
                - math.log(10)
                for k in range(10)
            ]
            exact.append(torch.logsumexp(torch.cat(terms), 0))
        exact = torch.stack(exact)
        weights = recipe.log_weights(x, 5_000)
        estimate = torch.logsumexp(weights, 0) - math.log(len(weights))
        assert torch.allclose(estimate, exact, atol=0.05)
        assert weights.mean(0).lt(exact).all()
        elbo = torch.stack([recipe.loss(image[None], k[None])[1]["elbo"] for image, k in zip(x, y, strict=True)])
        assert (elbo < exact + 1).all()


def test_what_draws_the_training_images_scores_as_they_do(monkeypatch):
    data = open_data("digits")
    classifier = classifier_of(data, lambda done: None)
    good, bad = Report(), Report()
    of_classes(good, Real(data.train), data, classifier)
    monkeypatch.setattr(conditional, "trained_on", lambda *_: classifier)  # another training would show nothing
    of_classes(bad, Real(data.train, wrong=0.4), data, classifier)
    assert good.metrics["test/class_accuracy"] > 97
    assert good.metrics["test/cas"] > good.metrics["test/real_cas"] - 6
    assert 50 < bad.metrics["test/class_accuracy"] < 70
    assert good.pictures["test-samples-of-classes"].shape[0] > 10 * 28


def test_the_share_of_unsure_samples_is_counted():
    sure, half = [9.0, 0.0, 0.0], [1.0, 1.0, 0.0]
    assert class_metrics(torch.tensor([sure, sure, half, sure]))["unsure"] == 25
    p = math.log(0.9 / 0.05)
    assert class_metrics(torch.tensor([[p + 1e-3, 0.0, 0.0], [p - 1e-3, 0.0, 0.0]]))["unsure"] == 50


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_class_is_drawn_by_its_name(cli, here, name):
    trained = cli("train", name, "--data", "digits", "--epochs", 1, "--conditional", "--name", "c")
    assert trained.code == 0 and "aelab sample c --label all" in trained.out + trained.err
    answer = cli("sample", "c", "--label", "7", "-n", 5, "--out", "seven.png")
    assert answer.code == 0 and opened(here / "seven.png").size[0] > 28
    assert cli("sample", "c", "--label", "all", "--out", "all.png").code == 0
    width, height = opened(here / "all.png").size
    assert width == height, "ten rows of ten images"
    run = aelab.load("c")
    assert "samples" in aelab.figures.available(run)
    assert run.sample(label="all").shape == (100, 1, 8, 8) and run.sample(3, label=7).shape == (3, 1, 8, 8)
    assert torch.equal(run.sample(3, label=7), run.sample(3, label="7"))
    for label in ("x", "10", "-1"):
        answer = cli("sample", "c", f"--label={label}")
        assert answer.code == 2 and f"digits has no class '{label}'" in answer.err and "0, 1, 2" in answer.err


def test_a_run_without_labels_says_what_to_type(cli):
    trained = cli("train", "gan", "--data", "digits", "--epochs", 1, "--name", "plain")
    assert "aelab train gan --conditional" in trained.out + trained.err
    answer = cli("sample", "plain", "--label", "7")
    assert answer.code == 2 and "draws no class on request" in answer.err
    assert "aelab train gan --conditional" in answer.err
    answer = cli("interpolate", "plain", "--vary", "class")
    assert answer.code == 2 and "--conditional" in answer.err


def test_images_without_labels_cannot_be_conditional(cli, here):
    from PIL import Image

    (here / "flat").mkdir()
    for k in range(12):
        Image.new("L", (8, 8), 20 * k).save(here / "flat" / f"{k}.png")
    for name in CONDITIONAL:
        answer = cli("train", name, "--data", "flat", "--conditional")
        assert answer.code == 2 and "--conditional needs images of at least two classes" in answer.err


@pytest.mark.parametrize("name", CONDITIONAL)
def test_one_part_of_a_code_changes_at_a_time(name, here):
    run = aelab.train(name, **TINY, conditional=True)
    walks = aelab.interpolate(run, vary="class", path="linear", pairs=2, steps=3)
    assert walks["linear"].images.shape == (6, 1, 8, 8)
    run.recipe.decode = lambda z: z  # the codes themselves
    from aelab.workflows.drawing import walk

    rows = {vary: walk(run, ["spherical"], 5, 4, 0, vary)["spherical"].view(5, 4, -1) for vary in ("class", "style")}
    z, y = rows["class"][..., :-10], rows["class"][..., -10:]
    assert torch.allclose(z, z[:, :1].expand_as(z), atol=1e-6) and (y[:, 0].argmax(1) != y[:, -1].argmax(1)).all()
    assert torch.allclose(y.sum(2), torch.ones(5, 4)), "between two classes, on a line"
    z, y = rows["style"][..., :-10], rows["style"][..., -10:]
    assert torch.equal(y, y[:, :1].expand_as(y)) and (z[:, 0] != z[:, -1]).all()


@pytest.mark.parametrize("net", ["mlp", "conv"])
@pytest.mark.parametrize("image", [(1, 28, 28), (3, 32, 32), (1, 9, 13), (3, 64, 48), (1, 8, 8)])
def test_a_gan_of_any_size_takes_a_step_and_draws_its_classes(net, image):
    recipe = recipe_files.build(
        recipe_files.available()["gan"], image, {"net": net, "conditional": True, "hidden": 16, "width": 4}, 3
    )
    x, y = torch.rand(4, *image), torch.tensor([0, 1, 2, 0])
    (phase,) = recipe.phases(1)
    before = [p.detach().clone() for p in recipe.parameters()]
    phase.step(x, y, **phase.optimizers)
    assert all(not torch.equal(p, b) for p, b in zip(recipe.parameters(), before, strict=True)), (
        "every parameter learns"
    )
    assert recipe.eval().decode(recipe.sample_class(y)).shape == x.shape
