"""Each loss against a slow, literal transcription of its equation."""

import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

from aelab import cookbook
from aelab.recipe import descend

IMAGE = (1, 4, 5)


def build(name, **options):
    return cookbook.build(cookbook.find(name), IMAGE, options)


def batch(n=6):
    return torch.rand(n, *IMAGE), torch.zeros(n, dtype=torch.long)


@pytest.mark.parametrize("name", ["linear", "stacked"])
def test_squared_error_is_the_mean_over_images_and_pixels(name):
    recipe = build(name, latent_dim=3)
    x, y = batch()
    back = recipe.decode(recipe.encode(x))
    total = sum((x[b, 0, i, j] - back[b, 0, i, j]) ** 2 for b in range(6) for i in range(4) for j in range(5))
    assert recipe.loss(x, y)[0].item() == pytest.approx((total / (6 * 20)).item(), rel=1e-5)


def test_linear_has_no_activation():
    recipe = build("linear", latent_dim=3)
    a, b = batch()[0], batch()[0]
    through = lambda x: recipe.decode(recipe.encode(x))  # noqa: E731
    affine = through(a) + through(b) - through(torch.zeros_like(a))
    assert torch.allclose(through(a + b), affine, atol=1e-5)


def test_kl_against_numerical_integration():
    recipe = build("vae", latent_dim=2)
    x, _ = batch(3)
    mu, log_var = recipe.posterior(x)
    z = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    total = 0.0
    for b in range(3):
        for d in range(2):
            q = Normal(mu[b, d].double(), (log_var[b, d] / 2).exp().double())
            density = q.log_prob(z).exp()
            total += torch.trapezoid(density * (q.log_prob(z) - Normal(0.0, 1.0).log_prob(z)), z).item()
    closed = (mu**2 + log_var.exp() - 1 - log_var).sum().item() / 2
    assert closed == pytest.approx(total, rel=1e-4)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_vae_loss_term_by_term(beta):
    recipe = build("vae", latent_dim=2, beta=beta)
    grey, y = batch()
    torch.manual_seed(7)
    loss, parts = recipe.loss(grey, y)
    torch.manual_seed(7)  # the same draws, in the order of the page
    x = torch.bernoulli(grey)
    mu, log_var = recipe.posterior(x)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    nll = -Bernoulli(probs=recipe.decode(z)).log_prob(x).sum() / len(x)
    kl = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum() / len(x)
    assert parts["nll"].item() == pytest.approx(nll.item(), rel=1e-4)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert parts["elbo"].item() == pytest.approx(-(nll + kl).item(), rel=1e-4)
    assert loss.item() == pytest.approx((nll + beta * kl).item(), rel=1e-4)


def test_vae_sees_binary_images_only():
    recipe = build("vae")
    seen = []
    recipe.encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    recipe.loss(*batch(50))
    assert set(seen[0].unique().tolist()) == {0.0, 1.0}
    assert seen[0].mean() == pytest.approx(0.5, abs=0.1)


def test_the_code_of_a_vae_is_the_posterior_mean():
    recipe = build("vae")
    x, _ = batch()
    assert torch.equal(recipe.encode(x), recipe.posterior(x)[0])
    assert torch.equal(recipe.encode(x), recipe.encode(x))


@pytest.mark.parametrize("game", ["minimax", "non-saturating"])
def test_gan_losses(game):
    recipe = build("gan", loss=game)
    real, fake = torch.randn(8, 1), torch.randn(8, 1)
    d = lambda logit: 1 / (1 + math.exp(-logit))  # noqa: E731
    critic, parts = recipe.critic_loss(real, fake)
    value = sum(math.log(d(a)) for a in real) / 8 + sum(math.log(1 - d(b)) for b in fake) / 8
    assert critic.item() == pytest.approx(-value, rel=1e-4)
    assert parts["d_fake"].item() == pytest.approx(sum(d(b) for b in fake) / 8, rel=1e-4)
    wanted = {"minimax": lambda b: math.log(1 - d(b)), "non-saturating": lambda b: -math.log(d(b))}[game]
    assert recipe.forger_loss(fake).item() == pytest.approx(sum(wanted(b) for b in fake) / 8, rel=1e-4)


def test_the_two_games_differ_by_d_over_one_minus_d():
    """d/dl log(1-D) = -D and d/dl -log D = -(1-D): the generator's gradients differ by D/(1-D)."""
    for logit in (-8.0, -1.0, 0.0, 2.0):
        gradients = {}
        for game in ("minimax", "non-saturating"):
            fake = torch.tensor([[logit]], requires_grad=True)
            build("gan", loss=game).forger_loss(fake).backward()
            gradients[game] = fake.grad.item()
        d = 1 / (1 + math.exp(-logit))
        assert gradients["minimax"] / gradients["non-saturating"] == pytest.approx(d / (1 - d), rel=1e-3)


def test_a_round_of_the_game_moves_each_player_by_its_own_loss_only():
    recipe = build("gan")
    phase = recipe.phases(1)[0]
    owners = {
        name: {id(p) for group in adam.param_groups for p in group["params"]} for name, adam in phase.optimizers.items()
    }
    assert owners["adam_d"] == {id(p) for p in recipe.discriminator.parameters()}
    assert owners["adam_g"] == {id(p) for p in recipe.generator.parameters()}


def test_descend_moves_nothing_on_a_non_finite_gradient():
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    adam = torch.optim.Adam([weight], 0.1)
    for loss in (weight.sum() * math.nan, weight.sqrt().sum()):  # sqrt'(0) is infinite though the loss is 0
        with pytest.raises(ArithmeticError):
            descend(adam, loss)
        assert weight.item() == 0.0 and not adam.state


def test_descend_returns_the_norm_of_the_gradient():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    assert descend(torch.optim.SGD([weight], 0.1), (weight**2).sum() / 2).item() == pytest.approx(5.0)
