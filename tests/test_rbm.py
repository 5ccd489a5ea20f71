"""The restricted Boltzmann machine against sums over all its states."""

import copy
import itertools
import math

import pytest
import torch
from safetensors.torch import load_file

from aelab import recipe_files
from aelab.data import open_data
from aelab.evaluation import evaluate_loss
from aelab.figures.grids import TILE, filter_grid
from aelab.recipe import Autoencodes, EnergyBased, Generates, HasFilters, NonFiniteError
from aelab.training import Settings, Trainer

IMAGE = (1, 2, 3)
D = 4


def states(n):
    """All 2^n states of n units, (2^n, n)."""
    return torch.tensor(list(itertools.product([0.0, 1.0], repeat=n)))


V, H = states(6), states(D)


def build(scale=0.7, image=IMAGE, **options):
    """A machine with random weights, whose centres are neither 0 nor 1/2."""
    recipe = recipe_files.build(recipe_files.find("rbm"), image, {"latent_dim": D, **options})
    with torch.no_grad():
        for parameter in recipe.parameters():
            parameter.normal_(0, scale)
        recipe.m.uniform_(0.2, 0.8)
        recipe.n.uniform_(0.2, 0.8)
        recipe.seen += 1
    return recipe


def plain(recipe):
    """a, b and W of the energy of the equations, which knows no centres."""
    w = recipe.weight.detach()
    return recipe.a.detach() - w @ recipe.n, recipe.b.detach() - recipe.m @ w, w


def joint(recipe):
    """p(v, h) of all pixels and hidden states, (2^V, 2^D), by the definition of the energy."""
    a, b, w = plain(recipe)
    return torch.softmax((V @ a[:, None] + H @ b + V @ w @ H.T).flatten(), 0).view(len(V), len(H))


def frequencies(v):
    """How often each of the states V is among the rows of v."""
    index = (v.flatten(1).long() * 2 ** torch.arange(5, -1, -1)).sum(1)
    return torch.bincount(index, minlength=len(V)) / len(v)


def distance(p, q):
    """The total variation distance."""
    return (p - q).abs().sum().item() / 2


def test_it_can_what_the_page_says():
    recipe = build()
    assert all(isinstance(recipe, each) for each in (Autoencodes, Generates, EnergyBased, HasFilters))


def test_free_energy_is_minus_the_log_of_the_sum_over_hidden_states():
    recipe = build()
    a, b, w = plain(recipe)
    slow = -torch.logsumexp(V @ a[:, None] + H @ b + V @ w @ H.T, 1)
    difference = recipe.free_energy(V.unflatten(1, IMAGE)) - slow  # a constant: both are up to one
    assert torch.allclose(difference, difference.mean().expand(len(V)), atol=1e-5)
    energy = recipe.free_energy(V).detach()
    assert torch.allclose(torch.softmax(-energy, 0), joint(recipe).sum(1), atol=1e-6)


def test_encode_and_decode_are_the_conditionals():
    recipe = build()
    p = joint(recipe)
    assert torch.allclose(recipe.encode(V.unflatten(1, IMAGE)), (p / p.sum(1, True)) @ H, atol=1e-5)
    assert torch.allclose(recipe.decode(H).flatten(1), (p / p.sum(0)).T @ V, atol=1e-5)


def test_pseudo_likelihood_is_the_product_of_the_conditionals_of_the_pixels():
    recipe = build()
    p = joint(recipe).sum(1)
    x = V[[5, 40]]
    exact = []
    for v in x:
        flipped = (v - torch.eye(6)).abs()  # each pixel in turn
        there, others = p @ (v == V).all(1).float(), torch.stack([p @ (f == V).all(1).float() for f in flipped])
        exact.append(-(there / (there + others)).log().sum())
    drawn = recipe.pseudo_nll(x.repeat_interleave(4000, 0).unflatten(1, IMAGE)).view(2, -1)
    assert torch.allclose(drawn.mean(1), torch.stack(exact), rtol=0.05)


@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_annealing_finds_the_partition_function_with_the_error_that_it_says(scale):
    recipe = build(scale)
    exact = torch.logsumexp(-recipe.free_energy(V), 0).item()
    w = (recipe.log_partition(20, 100 * 200).view(200, 100) - exact).exp()  # 200 estimates by 100 chains each
    estimates, errors = w.mean(1), w.std(1) / math.sqrt(100)
    assert estimates.mean().item() == pytest.approx(1, abs=4 * estimates.std().item() / math.sqrt(200))  # no bias
    assert errors.square().mean().sqrt().item() == pytest.approx(estimates.std().item(), rel=0.25)
    assert estimates.std() < 0.1
    finer = (recipe.log_partition(200, 2000) - exact).exp()
    assert finer.std() < w.std() / 2, "more steps, a smaller error"


def test_annealing_begins_at_independent_pixels():
    """Without weights every step leaves the distribution as it is, and all chains agree on Z exactly."""
    recipe = build()
    with torch.no_grad():
        recipe.weight.zero_()
        recipe.b.zero_()
        recipe.a.copy_(torch.logit(recipe.m))
    log_w = recipe.log_partition(3, 5)
    assert log_w.shape == (5,)
    assert torch.allclose(log_w.float(), torch.logsumexp(-recipe.free_energy(V), 0).detach().expand(5), atol=1e-5)


@pytest.mark.parametrize("negative", ["pcd", "cd"])
def test_the_gradient_is_that_of_the_likelihood(negative):
    """After many steps from anywhere the chains draw from the model; autograd of the exact log p(v) is the witness."""
    recipe = build(0.5, negative=negative, steps=20, chains=100_000)
    x = V[torch.randint(len(V), (100,))].repeat(1000 if negative == "cd" else 1, 1).unflatten(1, IMAGE)
    model, _ = recipe.negative_phase(x)
    gap = recipe.free_energy(x).mean() - recipe.free_energy(model).mean()
    found = torch.autograd.grad(gap, list(recipe.parameters()))
    nll = recipe.free_energy(x).mean() + torch.logsumexp(-recipe.free_energy(V), 0)
    exact = torch.autograd.grad(nll, list(recipe.parameters()))
    for one, other in zip(found, exact, strict=True):
        assert torch.allclose(one, other, atol=0.01)
        assert other.abs().max() > 0.05


def test_centring_changes_the_gradient_and_not_the_distribution():
    """The gradient of W is the covariance of Montavon & Mueller: <(v - m)(h - n)'> of the data less that of the model."""
    recipe = build()
    x, model = V[3:9], V[20:40]
    gap = recipe.free_energy(x).mean() - recipe.free_energy(model).mean()
    (found,) = torch.autograd.grad(gap, recipe.weight)
    centred = [(v - recipe.m).T @ (recipe.hidden(v) - recipe.n) / len(v) for v in (x, model)]
    assert torch.allclose(found, centred[1] - centred[0], atol=1e-6)
    before, m, n = joint(recipe), recipe.m.clone(), recipe.n.clone()
    for _ in range(50):
        recipe.centre(x)
    assert not torch.allclose(recipe.m, m, atol=0.05) and not torch.allclose(recipe.n, n, atol=0.01)
    assert torch.allclose(joint(recipe), before, atol=1e-6)


def test_it_begins_as_a_model_of_independent_pixels():
    recipe = recipe_files.build(recipe_files.find("rbm"), IMAGE, {"latent_dim": D, "lr": 1e-9})
    x = (torch.rand(500, *IMAGE) < torch.linspace(0.1, 0.9, 6).view(IMAGE)).float()
    (phase,) = recipe.phases(1)
    phase.step(x, None, **phase.optimizers)
    assert torch.allclose(joint(recipe).sum(1) @ V, x.flatten(1).mean(0), atol=0.01)
    a = recipe.a.clone()
    phase.step(1 - x, None, **phase.optimizers)
    assert torch.allclose(recipe.a, a, atol=0.01), "by the first batch only"


@pytest.mark.parametrize("negative", ["pcd", "cd"])
def test_training_comes_to_the_distribution_of_the_data(negative):
    """Three pairs of pixels, each equal with probability 0.9. Independent pixels would cost 6 log 2 = 4.16 nats."""
    recipe = recipe_files.build(recipe_files.find("rbm"), IMAGE, {"latent_dim": D, "negative": negative, "lr": 0.3})
    (phase,) = recipe.phases(1)
    for _ in range(1500):
        x = (torch.rand(128, 3) < 0.5).float()
        x = torch.cat([x, (x - (torch.rand(128, 3) < 0.1).float()).abs()], 1).unflatten(1, IMAGE)
        phase.step(x, None, **phase.optimizers)
    p = joint(recipe).sum(1)
    exact = (0.5**3 * torch.where(V[:, :3] == V[:, 3:], 0.9, 0.1).prod(1)) @ -p.log()
    entropy = -3 * (0.9 * math.log(0.9 / 2) + 0.1 * math.log(0.1 / 2))  # 3.05
    assert entropy <= exact.item() < entropy + 0.1


@pytest.mark.parametrize(("chains", "n"), [(20_000, 20_000), (5000, 20_000), (20_000, 7)])
def test_samples_have_the_distribution_of_the_model(chains, n):
    recipe = build(0.5, chains=chains).eval()
    h = recipe.sample_prior(n)
    assert h.shape == (n, D) and set(h.unique().tolist()) <= {0.0, 1.0}
    if n > 1000:
        p = joint(recipe).sum(1)
        found = distance(frequencies(torch.bernoulli(recipe.decode(h))), p)
        assert found < 0.04 < distance(frequencies(torch.bernoulli(torch.full((n, 6), 0.5))), p)


def test_rows_beyond_the_chains_are_other_states():
    recipe = build(0.1, image=(1, 4, 4), chains=50, latent_dim=30)
    h = recipe.sample_prior(150).view(3, 50, 30)
    assert not any(torch.equal(h[i], h[j]) for i, j in ((0, 1), (1, 2), (0, 2)))


def test_chains_advance_in_training_and_nowhere_else():
    recipe = build(chains=30)
    x, y = torch.rand(50, *IMAGE), torch.zeros(50)
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    for mode in (recipe.eval(), recipe.train()):
        with torch.no_grad():
            mode.loss(x, y), mode.sample_prior(70), mode.log_partition(5, 5), mode.decode(mode.encode(x))
    assert all(torch.equal(value, before[name]) for name, value in recipe.state_dict().items())
    (phase,) = recipe.phases(1)
    phase.step(x, y, **phase.optimizers)
    assert not torch.equal(recipe.chains, before["chains"])


@pytest.mark.parametrize("negative", ["pcd", "cd"])
@pytest.mark.parametrize("images", [2, 40])
def test_a_batch_may_be_smaller_or_larger_than_the_chains(negative, images):
    recipe = build(negative=negative, chains=10)
    (phase,) = recipe.phases(1)
    phase.step(torch.rand(images, *IMAGE), None, **phase.optimizers)
    assert recipe.chains.shape == (10, D) and recipe.chains.dtype == torch.bool


def test_a_gradient_that_is_not_finite_changes_nothing():
    recipe = build()
    with torch.no_grad():
        recipe.weight[0, 0] = math.nan
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    (phase,) = recipe.phases(1)
    with pytest.raises(NonFiniteError):
        phase.step(torch.rand(9, *IMAGE), None, **phase.optimizers)
    assert all(torch.allclose(value, before[name], equal_nan=True) for name, value in recipe.state_dict().items())


def trained(**settings):
    data = open_data("digits")
    torch.manual_seed(0)
    recipe = recipe_files.build(recipe_files.find("rbm"), data.image, {"latent_dim": 8, "chains": 20})
    trainer = Trainer(recipe, data, Settings(**{"epochs": 2, "batch_size": 50, **settings}))
    for _ in trainer:
        pass
    return trainer


def test_an_average_of_the_weights_has_the_chains_of_the_last_step():
    trainer = trained(ema=0.9)
    assert torch.equal(trainer.kept.chains, trainer.recipe.chains) and trainer.kept.seen == trainer.recipe.seen > 10
    assert not torch.equal(trainer.kept.weight, trainer.recipe.weight)


def test_validation_leaves_the_chains_and_measures_what_is_no_loss():
    trainer = trained()
    chains = trainer.recipe.chains.clone()
    first, second = (evaluate_loss(trainer.recipe, trainer.data.val) for _ in range(2))
    assert first == second and {"loss", "pseudo_nll", "mse"} <= first.keys()
    assert torch.equal(trainer.recipe.chains, chains)
    worse = copy.deepcopy(trainer.recipe)
    with torch.no_grad():
        worse.weight.zero_()
    assert first["pseudo_nll"] < evaluate_loss(worse, trainer.data.val)["pseudo_nll"]


def test_a_checkpoint_holds_the_chains_and_a_run_has_a_picture_of_filters(cli, here):
    answer = cli("train", "rbm", "--data", "digits", "--max-steps", 30, "--latent-dim", 10, "--chains", 20, "-q")
    assert answer.code == 0, answer.err
    (weights,) = here.glob("mlruns/aelab/*/artifacts/checkpoints/last-*/weights.safetensors")
    assert load_file(weights)["chains"].shape == (20, 10)
    assert list(here.glob("mlruns/aelab/*/artifacts/pictures/filters.png"))
    assert cli("sample", "rbm", "-n", 30).code == 0


def test_zero_is_grey_in_a_filter_and_its_largest_weight_black_or_white():
    weights = torch.zeros(3, 1, TILE, TILE)
    weights[0, 0, 0, :2] = torch.tensor([0.1, -0.05])
    weights[1, 0, 0, 0] = -7
    sheet = filter_grid(weights)
    left = [2 + k * (TILE + 2) for k in range(3)]
    assert sheet[2, left[0], 0] == 255 and sheet[2, left[0] + 1, 0] == 64 and sheet[2, left[1], 0] == 0
    assert (sheet[3:-2, left[0] : left[0] + TILE] == 128).all() and (sheet[:, left[2] :] == 128).all()
