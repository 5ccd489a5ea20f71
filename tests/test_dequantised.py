"""A density of grey values is one of dequantised values, and so a bound of the probability of 8-bit images."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal

from aelab import recipe_files
from aelab.data.catalog import Raw
from aelab.data.dataset import split
from aelab.evaluation import Report, measure
from aelab.evaluation.likelihood import bits_per_dim
from aelab.evaluation.measure import likelihood, losses
from aelab.recipe import Recipe

LEVELS = torch.arange(256)


def build(name, image, **options):
    torch.manual_seed(0)
    return recipe_files.build(recipe_files.find(name), image, options, 0)


def one_pixel(s, likelihood="gaussian"):
    """p(z) = N(0, 1), p(x|z) of one pixel with mean m(z) = 1 / (1 + exp(-1.7 z)) and scale s; q(z|x) = N(5 x - 2.5, 1)."""
    recipe = build("vae", (1, 1, 1), latent_dim=1, net="mlp", likelihood=likelihood)
    recipe.encoder = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    recipe.decoder = nn.Sequential(nn.Linear(1, 1), nn.Unflatten(1, (1, 1, 1)))
    with torch.no_grad():
        recipe.log_s.fill_(math.log(s))
        recipe.encoder[1].weight.copy_(torch.tensor([[5.0], [0.0]]))
        recipe.encoder[1].bias.copy_(torch.tensor([-2.5, 0.0]))
        recipe.decoder[0].weight.fill_(1.7)
        recipe.decoder[0].bias.zero_()
    return recipe


def density(recipe, y):
    """p(y) (N,) of values y (N,) of the pixel, by quadrature over the code."""
    z = torch.linspace(-8, 8, 3001)
    with torch.no_grad():
        m = recipe.decode(z[:, None]).flatten().double()
    weight = Normal(0.0, 1.0).log_prob(z.double()).exp() * (z[1] - z[0]).double()  # nothing is left at either end
    given = Normal(m, recipe.log_s.exp().item())
    return torch.cat([given.log_prob(part[:, None]).exp() @ weight for part in y.double().split(200)])


def probabilities(recipe, points=40):
    """P(k) of each level k: the density over the 1/256 that belongs to it, by the middles of so many parts."""
    y = (LEVELS[:, None] + (torch.arange(points) + 0.5) / points) / 256
    return density(recipe, y.flatten()).view(256, points).mean(1) / 256


@pytest.mark.parametrize("make", [lambda image: build("linear", image, latent_dim=3, variational=True),
                                  lambda image: build("vae", image, likelihood="gaussian")], ids=["linear", "vae"])  # fmt: skip
def test_each_value_is_drawn_from_the_part_that_belongs_to_its_level(make):
    x = LEVELS.repeat(300, 1).view(-1, 1, 16, 16) / 255
    u = 256 * make((1, 16, 16)).observe(x).flatten(1).double() - LEVELS
    assert -1e-4 < u.min() < 0.01 and 0.99 < u.max() < 1 + 1e-4
    assert u.mean() == pytest.approx(0.5, abs=0.01) and u.var() == pytest.approx(1 / 12, rel=0.02)
    assert (u[:, 1:] * u[:, :-1]).mean() == pytest.approx(0.25, abs=0.01), "each value has a u of its own"


@pytest.mark.parametrize("s", [0.004, 0.02, 0.3])
def test_a_density_of_dequantised_values_bounds_the_probability_of_every_level(s):
    recipe = one_pixel(s)
    exact = probabilities(recipe)
    assert 0.1 < exact.sum() <= 1 + 1e-6, "what is missing lies outside of [0, 1]"
    torch.manual_seed(1)
    y = recipe.observe((LEVELS / 255).repeat(100).view(-1, 1, 1, 1)).flatten()
    bound = density(recipe, y).clamp(min=1e-99).log().view(100, 256).mean(0) - math.log(256)  # E_u log p(x) - log 256
    gap = exact.clamp(min=1e-99 / 256).log() - bound
    assert gap.min() > -0.05, "below 0 by the draws of u alone"
    assert gap[exact > 1e-4].max() < 0.2, "and it is near"


def test_a_density_at_the_levels_themselves_bounds_nothing():
    """The reason for the noise: a narrow density at k/255 exceeds the probability of all levels together."""
    recipe = build("linear", (1, 1, 1), latent_dim=1, variational=True)
    with torch.no_grad():
        recipe.log_s.fill_(-12.0)
        recipe.v.weight.zero_()
        recipe.w.weight.zero_()
        recipe.root.zero_()
        recipe.b.fill_(100 / 255)
    x = torch.tensor([100 / 255]).view(1, 1, 1, 1)
    assert -recipe.negative_elbo(x)[0].item() - math.log(256) > 5, "log of a probability"
    assert -recipe.loss(x.expand(1000, -1, -1, -1), None)[0].item() - math.log(256) < 0


def likelihood_of(recipe, samples):
    """What an evaluation says of the likelihood where the test images are four times every level of one pixel."""
    x = LEVELS.to(torch.uint8).repeat(4).view(-1, 1, 1, 1)
    pair = (x, torch.full((len(x),), -1))
    data, report = split("levels", Raw(pair, pair, (), ""), 0, ""), Report()
    losses(report, recipe, data, data.train)
    likelihood(report, recipe, data, None, samples, None)
    return report.metrics


@pytest.mark.parametrize("s", [0.02, 0.3])
def test_bits_per_dim_are_not_below_those_of_the_probabilities(s):
    recipe = one_pixel(s)
    metrics = likelihood_of(recipe, 500)
    exact = -probabilities(recipe).log2().mean().item()
    assert exact - 0.02 < metrics["test/bits_per_dim"] < exact + 0.3
    assert metrics["test/bits_per_dim"] == pytest.approx(metrics["test/marginal_nll"] / math.log(2) + 8)
    bound = likelihood_of(recipe, 0)
    assert bound["test/bits_per_dim"] == pytest.approx(-bound["test/elbo"] / math.log(2) + 8)
    assert bound["test/bits_per_dim"] > metrics["test/bits_per_dim"], "by the ELBO they are more"


@pytest.mark.parametrize("s", [0.004, 0.3])
def test_the_bits_of_a_logistic_vae_are_those_of_its_probabilities(s):
    """Nothing is drawn from the levels and nothing added to the bits: the 256 probabilities are by quadrature over the code."""
    recipe = one_pixel(s, "logistic")
    x = (LEVELS / 255).view(-1, 1, 1, 1)
    assert torch.equal(recipe.observe(x), x) and not recipe.binary and recipe.discrete
    z = torch.linspace(-8, 8, 3001)
    with torch.no_grad():
        rows = [recipe.log_likelihood(level.expand(len(z), 1, 1, 1), z[:, None]) for level in x]
    p = torch.trapezoid((torch.stack(rows) + Normal(0.0, 1.0).log_prob(z)).double().exp(), z.double())
    assert p.sum().item() == pytest.approx(1, abs=1e-4)
    metrics = likelihood_of(recipe, 500)
    assert metrics["test/bits_per_dim"] == pytest.approx(metrics["test/marginal_nll"] / math.log(2))
    assert metrics["test/bits_per_dim"] == pytest.approx(-p.log2().mean().item(), abs=0.05)
    bound = likelihood_of(recipe, 0)
    assert bound["test/bits_per_dim"] == pytest.approx(-bound["test/elbo"] / math.log(2))
    assert bound["test/bits_per_dim"] > metrics["test/bits_per_dim"]


class Uniform(Recipe):
    """Every image of three values is as likely as any other: as a density, or as so many levels."""

    binary = False

    def __init__(self, discrete):
        super().__init__()
        self.discrete, self.weight = discrete, torch.nn.Parameter(torch.zeros(1))

    def loss(self, x, y):
        return self.weight.sum(), {}

    def observe(self, x):
        return x

    def log_prob(self, x):
        return torch.full((len(x),), -3 * math.log(256) if self.discrete else 0.0)


@pytest.mark.parametrize("discrete", [False, True])
def test_a_uniform_distribution_has_eight_bits(discrete):
    images = torch.randint(256, (40, 3, 1, 1)).to(torch.uint8)
    data = split("some", Raw((images, torch.full((40,), -1)), None, (), ""), 0, "")
    report = measure(Uniform(discrete), data, plain=True)
    assert report.metrics["test/bits_per_dim"] == pytest.approx(8)
    assert report.tags["aelab.likelihood"] == ("levels" if discrete else "grey")
    assert bits_per_dim(3 * math.log(256), 3, discrete=True) == pytest.approx(8) == bits_per_dim(0.0, 3, discrete=False)


def test_a_likelihood_of_binary_images_has_no_bits_of_grey_ones():
    recipe = build("vae", (1, 8, 8), net="mlp", hidden=(8,), latent_dim=2)
    images = torch.randint(256, (40, 1, 8, 8)).to(torch.uint8)
    data = split("some", Raw((images, torch.full((40,), -1)), None, (), ""), 0, "")
    assert not [name for name in measure(recipe, data, draws=2, plain=True).metrics if "bits_per_dim" in name]


def test_pca_stands_beside_the_same_dequantised_images():
    """The linear VAE that is set to what PCA finds has its likelihood, and the bits of both agree."""
    torch.manual_seed(2)
    x = ((torch.randn(600, 3) @ torch.randn(3, 48)) * 12 + torch.randn(600, 48) * 2 + 128).clamp(0, 255).to(torch.uint8)
    pair = (x.view(-1, 3, 4, 4), torch.full((600,), -1))
    data = split("some", Raw(pair, pair, (), ""), 0, "")
    y = data.train.images.flatten(1).double()
    draws = torch.cat([(y + torch.rand_like(y)) / 256 for _ in range(20)])
    values, vectors = torch.linalg.eigh(torch.cov(draws.T))
    noise = values[:-3].mean()
    recipe = build("linear", (3, 4, 4), latent_dim=3, variational=True)
    with torch.no_grad():  # Tipping & Bishop 1999, equations 6 to 8
        v = vectors[:, -3:] * (values[-3:] - noise).sqrt()
        m = v.T @ v + noise * torch.eye(3)
        recipe.v.weight.copy_(v)
        recipe.w.weight.copy_(torch.linalg.solve(m, v.T))
        recipe.b.copy_(draws.mean(0))
        recipe.log_s.fill_(noise.log() / 2)
        root = torch.linalg.cholesky(noise * torch.linalg.inv(m))
        recipe.root.copy_(root.tril(-1) + root.diag().log().diag())
    metrics = measure(recipe, data, plain=True).metrics
    assert metrics["test/elbo"] == pytest.approx(metrics["test/pca_elbo"], abs=0.1)
    assert metrics["test/bits_per_dim"] == pytest.approx(metrics["test/pca_bits_per_dim"], abs=0.005)
    assert metrics["test/bits_per_dim"] == pytest.approx(8 - metrics["test/elbo"] / math.log(2) / 48)
