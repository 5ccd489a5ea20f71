"""Each loss against a slow, literal transcription of its equation."""

import copy
import math

import pytest
import torch
from torch.distributions import Bernoulli, MultivariateNormal, Normal, kl_divergence
from torch.optim import SGD

from aelab import recipe_files
from aelab.recipe import descend

IMAGE = (1, 4, 5)


def build(name, image=IMAGE, classes=3, **options):
    return recipe_files.build(recipe_files.find(name), image, options, classes)


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
    critic, parts = recipe.discriminator_loss(real, fake)
    value = sum(math.log(d(a)) for a in real) / 8 + sum(math.log(1 - d(b)) for b in fake) / 8
    assert critic.item() == pytest.approx(-value, rel=1e-4)
    assert parts["d_fake"].item() == pytest.approx(sum(d(b) for b in fake) / 8, rel=1e-4)
    wanted = {"minimax": lambda b: math.log(1 - d(b)), "non-saturating": lambda b: -math.log(d(b))}[game]
    assert recipe.generator_loss(fake).item() == pytest.approx(sum(wanted(b) for b in fake) / 8, rel=1e-4)


def test_the_two_games_differ_by_d_over_one_minus_d():
    """d/dl log(1-D) = -D and d/dl -log D = -(1-D): the generator's gradients differ by D/(1-D)."""
    for logit in (-8.0, -1.0, 0.0, 2.0):
        gradients = {}
        for game in ("minimax", "non-saturating"):
            fake = torch.tensor([[logit]], requires_grad=True)
            build("gan", loss=game).generator_loss(fake).backward()
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
            descend(loss, adam)
        assert weight.item() == 0.0 and not adam.state


def test_descend_returns_the_norm_of_the_gradient():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    assert descend((weight**2).sum() / 2, torch.optim.SGD([weight], 0.1)).item() == pytest.approx(5.0)


def transcribed_log_weight(recipe, x, z):
    """log p(x|z) + log p(z) - log q(z|x) of one image and one code, pixel by pixel."""
    mu, log_var = (part[0] for part in recipe.posterior(x[None]))
    m = recipe.decode(z[None])[0].flatten()
    total = 0.0
    for pixel, p in zip(x.flatten().tolist(), m.tolist(), strict=True):
        if recipe.binary:
            total += math.log(p if pixel else 1 - p)
        else:
            s = recipe.log_s.exp().item()
            total += -((pixel - p) ** 2) / (2 * s * s) - math.log(s * math.sqrt(2 * math.pi))
    for d in range(len(z)):
        sigma = math.exp(log_var[d] / 2)
        total += -(z[d] ** 2) / 2 + ((z[d] - mu[d]) / sigma) ** 2 / 2 + math.log(sigma)
    return float(total)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_importance_weights(likelihood):
    recipe = build("vae", latent_dim=2, likelihood=likelihood)
    x = recipe.observe(batch(3)[0])
    torch.manual_seed(5)
    weights = recipe.log_weights(x, 4)
    torch.manual_seed(5)
    mu, log_var = recipe.posterior(x)
    z = mu + torch.exp(log_var / 2) * torch.randn(4, 3, 2)
    assert weights.shape == (4, 3)
    for k in range(4):
        for b in range(3):
            assert weights[k, b].item() == pytest.approx(transcribed_log_weight(recipe, x[b], z[k, b]), rel=1e-4)


def test_the_importance_weighted_bound_does_not_fall_with_k():
    """Burda et al. 2016, theorem 1: E log mean_k w_k rises with K; K = 1 is the ELBO."""
    recipe = build("vae", latent_dim=2)
    with torch.no_grad():
        for parameter in recipe.encoder.parameters():
            parameter.mul_(3)  # a posterior that is far from the true one
        x = recipe.observe(batch(1)[0])
        weights = recipe.log_weights(x.repeat(4000, 1, 1, 1), 64)  # (64, 4000)
        bounds = [(torch.logsumexp(weights[:k], 0) - math.log(k)).mean().item() for k in (1, 2, 8, 64)]
    assert bounds == sorted(bounds) and bounds[-1] > bounds[0] + 0.01


def test_importance_sampling_finds_the_likelihood_that_a_quadrature_finds():
    from aelab.data import Split
    from aelab.evaluation.likelihood import importance_nll

    recipe = build("vae", latent_dim=1)
    images = (torch.rand(3, *IMAGE) > 0.5).to(torch.uint8) * 255
    grid = torch.linspace(-10, 10, 4001)
    with torch.no_grad():
        found = importance_nll(recipe, Split(images, torch.zeros(3).long()), 20000, lambda _: None)
        exact = []
        for image in images:
            x = (image / 255)[None].repeat(len(grid), 1, 1, 1)
            joint = recipe.log_likelihood(x, grid[:, None]) + Normal(0.0, 1.0).log_prob(grid)
            exact.append(-torch.log(torch.trapezoid(joint.double().exp(), grid.double())).item())
    assert found["iwae_nll"] == pytest.approx(sum(exact) / 3, abs=0.02)
    assert found["iwae_nll_se"] == pytest.approx(torch.tensor(exact).std().item() / math.sqrt(3), abs=0.02)


def test_the_denoisers_target_is_the_clean_image():
    for noise in ("gaussian", "dropout", "masking"):
        recipe = build("denoising", noise=noise, level=0.4, hidden=(8,), latent_dim=4)
        x, y = batch()
        torch.manual_seed(2)
        loss, _ = recipe.loss(x, y)
        torch.manual_seed(2)
        corrupted = recipe.corrupt(x)
        assert not torch.equal(corrupted, x)
        assert loss.item() == pytest.approx(
            (recipe.decode(recipe.encode(corrupted)) - x).square().mean().item(), rel=1e-5
        )


def test_noise_has_the_level_that_is_asked_for():
    x = torch.full((400, *IMAGE), 0.8)
    noisy = {n: build("denoising", noise=n, level=0.25).corrupt(x) for n in ("gaussian", "dropout", "masking")}
    assert (noisy["gaussian"] - x).std().item() == pytest.approx(0.25, rel=0.05)
    for name, kept in (("dropout", 0.8 / 0.75), ("masking", 0.8)):
        assert (noisy[name] == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
        assert noisy[name].max().item() == pytest.approx(kept)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_recurrent_code_is_that_of_a_loop_over_rows(cell):
    recipe = build("recurrent", cell=cell, hidden=6, latent_dim=3)
    x, _ = batch(2)
    kind = torch.nn.LSTMCell if cell == "lstm" else torch.nn.GRUCell
    step = kind(5, 6)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in recipe.reader.state_dict().items()})
    state = None
    for t in range(4):
        state = step(x[:, 0, t], state)
    last = state[0] if cell == "lstm" else state
    assert torch.allclose(recipe.encode(x), recipe.code(last), atol=1e-6)


def linear_vae():
    """A linear VAE with a posterior that is not diagonal."""
    recipe = build("linear", latent_dim=3, variational=True)
    with torch.no_grad():
        recipe.root.copy_(torch.randn(3, 3) / 2)
    return recipe


def test_the_linear_vae_against_sampling():
    recipe = linear_vae()
    x, y = batch(2)
    loss, parts = recipe.loss(x, y)
    root = recipe.root.tril(-1) + recipe.root.diag().exp().diag()
    q = MultivariateNormal(recipe.encode(x), scale_tril=root)
    z = q.sample((40000,))  # (S, B, D)
    p = Normal(recipe.decode(z.flatten(0, 1)).view(40000, *x.shape), recipe.log_s.exp())
    assert parts["nll"].item() == pytest.approx(-p.log_prob(x).flatten(2).sum(2).mean().item(), rel=0.01)
    kl = kl_divergence(q, MultivariateNormal(torch.zeros(3), torch.eye(3))).mean()
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert loss.item() == pytest.approx((parts["nll"] + parts["kl"]).item()) == -parts["elbo"].item()


def test_the_linear_vae_never_exceeds_probabilistic_pca_and_reaches_it():
    """Tipping & Bishop 1999: log p(x) at the optimum, in closed form from the eigenvalues of the covariance."""
    torch.manual_seed(3)
    x = (torch.randn(400, 4) @ torch.randn(4, 20)).view(-1, *IMAGE) / 8 + 0.1 * torch.randn(400, *IMAGE) + 0.5
    flat = x.flatten(1).double()
    eigenvalues = torch.linalg.eigvalsh(torch.cov(flat.T, correction=0)).flip(0)
    noise = eigenvalues[2:].mean()
    exact = -0.5 * (20 * math.log(2 * math.pi) + eigenvalues[:2].log().sum() + 18 * noise.log() + 20)
    recipe = build("linear", latent_dim=2, variational=True)
    (phase,) = recipe.phases(1)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in phase.optimizers.items()}
    for step in range(3000):
        for name, rate in rates.items():
            phase.optimizers[name].param_groups[0]["lr"] = rate * (1 - step / 3000)
        elbo = phase.step(x, None, **phase.optimizers)["elbo"].item()
        assert elbo < exact + 1e-3
    assert elbo == pytest.approx(exact.item(), abs=0.02)


def test_the_linear_autoencoder_reaches_pca_in_few_steps_where_brightness_is_nearly_all():
    torch.manual_seed(3)
    directions = torch.linalg.qr(torch.cat([torch.ones(192, 1), torch.randn(192, 11)], 1)).Q
    codes = torch.randn(1024, 12) * torch.tensor([3.0, *torch.linspace(1, 0.1, 11).tolist()])
    x = (0.5 + codes @ directions.T).view(-1, 3, 8, 8)
    centred = (x - x.mean(0)).flatten(1).double()
    least = torch.linalg.eigvalsh(centred.T @ centred)[:-10].sum() / x.numel()
    recipe = recipe_files.build(recipe_files.find("linear"), (3, 8, 8), {"latent_dim": 10}, 0)
    (phase,) = recipe.phases(1)
    rates = {name: optimizer.param_groups[0]["lr"] for name, optimizer in phase.optimizers.items()}
    for step in range(400):
        for name, rate in rates.items():
            phase.optimizers[name].param_groups[0]["lr"] = rate * (1 + math.cos(math.pi * step / 400)) / 2
        phase.step(x[torch.randint(1024, (64,))], None, **phase.optimizers)
    assert 1 - 1e-5 < recipe.loss(x, None)[0].item() / least.item() < 1.02, "Adam alone: 6 or more"


def test_a_greedy_layer_learns_what_the_layers_below_give():
    recipe = build("stacked", hidden=(8, 6), latent_dim=3, greedy=True)
    phases = recipe.phases(20)
    assert [(p.name, p.epochs) for p in phases] == [("layer 1", 2), ("layer 2", 2), ("layer 3", 2), ("train", 20)]
    x, y = batch()
    with torch.no_grad():
        h = recipe.encoder[1](recipe.encoder[0](x.flatten(1)))
        loss = (recipe.decoder[0](recipe.encoder[2](h)) - h).square().mean()
    before = {name: p.detach().clone() for name, p in recipe.named_parameters()}
    assert phases[2].step(x, y, **phases[2].optimizers)["loss"].item() == pytest.approx(loss.item(), rel=1e-4)
    moved = {name.rsplit(".", 2)[0] for name, p in recipe.named_parameters() if not torch.equal(p, before[name])}
    assert {name.split(".weight")[0].split(".bias")[0][:9] for name in moved} == {"encoder", "decoder.0"}
    assert all(
        torch.equal(p, before[n]) for n, p in recipe.named_parameters() if n.startswith(("encoder.0", "decoder.2"))
    )


def test_the_second_phase_leaves_frozen_layers_alone():
    recipe = build("pretrained", hidden=(8, 6), latent_dim=5, freeze=2)
    first, second, _third = recipe.phases(1)
    x, _ = batch()
    y = torch.arange(6) % 3
    first.step(x, y, **first.optimizers)
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    recipe.train()
    second.step(x, y, **second.optimizers)
    moved = {
        name.split(".block")[0][:9]
        for name, value in recipe.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == {"encoder.3", "head.weig", "head.bias"}, "weights and running averages"
    lengths = [
        [p.epochs for p in build("pretrained", pretrain=p, labels=n).phases(3)] for p, n in ((True, 20), (False, 0))
    ]
    assert lengths == [[3, 10, 10], [0, 10, 0]], "from scratch; and no third phase where all have labels"


def test_where_there_is_no_label_the_classifier_gives_one_itself_of_the_clean_image():
    recipe = build("pretrained", hidden=(8,), latent_dim=4, labels=20, noise=0.0)
    third = recipe.phases(1)[2]
    x, _ = batch()
    assert third.labels == 20 and third.unlabelled
    y = torch.tensor([2, -1, 0, -1, -1, 1])
    with torch.no_grad():
        own = recipe.eval().classify(x).argmax(1)
        before = {name: value.clone() for name, value in recipe.state_dict().items()}
        target = torch.tensor([own[i] if label < 0 else label for i, label in enumerate(y.tolist())])
        logits = recipe.train().classify(x)
        expected = -torch.stack([row.log_softmax(0)[t] for row, t in zip(logits, target, strict=True)]).mean()
    recipe.load_state_dict(before)
    assert third.step(x, y, **third.optimizers)["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_classifiers_loss_is_cross_entropy():
    recipe = build("pretrained", hidden=(8,), latent_dim=4).eval()
    x, _ = batch()
    y = torch.arange(6) % 3
    probabilities = recipe.classify(x).softmax(1)
    wanted = -sum(math.log(probabilities[b, y[b]]) for b in range(6)) / 6
    assert recipe.loss(x, y)[0].item() == pytest.approx(wanted, rel=1e-4)


def test_label_smoothing_asks_for_one_minus_smooth():
    real, fake = torch.randn(8, 1), torch.randn(8, 1)
    d = lambda logit: 1 / (1 + math.exp(-logit))  # noqa: E731
    wanted = -sum(0.9 * math.log(d(a)) + 0.1 * math.log(1 - d(a)) for a in real) / 8
    wanted -= sum(math.log(1 - d(b)) for b in fake) / 8
    assert build("gan", smooth=0.1).discriminator_loss(real, fake)[0].item() == pytest.approx(wanted, rel=1e-4)


def test_vaegan_gives_each_network_the_gradient_of_its_own_loss():
    """Larsen et al. 2016: of G, gamma like + the game; of the encoder, KL + like. D has moved by then, and far."""
    recipe = build("vaegan", image=(1, 8, 8), latent_dim=3, width=8, gamma=0.5, noise=0.0)
    x = torch.rand(6, 1, 8, 8)
    twin = copy.deepcopy(recipe)
    discriminator = [*recipe.features.parameters(), *recipe.head.parameters()]
    vae = [*recipe.encoder.parameters(), *recipe.generator.parameters()]
    torch.manual_seed(4)
    figures = recipe.training_step(x, None, SGD(discriminator, 0.5), SGD(vae, 1.0))
    torch.manual_seed(4)
    mu, log_var = twin.posterior(x)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    kl = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum() / 6
    fake = twin.decode(torch.cat([z.detach(), twin.sample_prior(6)]))
    d_real, d_fake = twin.discriminate(x).sigmoid(), twin.discriminate(fake.detach()).sigmoid()
    game = d_real.log().mean() + (1 - d_fake[:6]).log().mean() / 2 + (1 - d_fake[6:]).log().mean() / 2
    players = [*twin.features.named_parameters(), *twin.head.named_parameters()]
    wanted = torch.autograd.grad(-game, [p for _, p in players])
    for (name, old), new, gradient in zip(players, discriminator, wanted, strict=True):
        assert torch.allclose(old - 0.5 * gradient, new, rtol=1e-4, atol=1e-6), name
    assert figures["d_loss"].item() == pytest.approx(-game.item(), rel=1e-4)
    assert figures["d_grad_norm"].item() == pytest.approx(length(wanted), rel=1e-4)

    twin.features.load_state_dict(recipe.features.state_dict())
    twin.head.load_state_dict(recipe.head.state_dict())
    like = (twin.features(twin.decode(z)) - twin.features(x).detach()).square().flatten(1).sum(1).mean() / 2
    d = twin.discriminate(fake).sigmoid()
    forger = -d[:6].log().mean() / 2 - d[6:].log().mean() / 2
    encoder = torch.autograd.grad(kl + like, list(twin.encoder.parameters()), retain_graph=True)
    generator = torch.autograd.grad(0.5 * like + forger, list(twin.generator.parameters()))
    old = [*twin.encoder.named_parameters(), *twin.generator.named_parameters()]
    steps = [*encoder, *(gradient / 0.5 for gradient in generator)]  # of G: 1/gamma times its loss
    for (name, before), after, step in zip(old, vae, steps, strict=True):
        assert torch.allclose(before - step, after, rtol=1e-3, atol=1e-5), name
    for name, value in {"kl": kl, "feature_loss": like, "g_loss": forger}.items():
        assert figures[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert figures["e_grad_norm"].item() == pytest.approx(length(encoder), rel=1e-3)
    assert figures["g_grad_norm"].item() == pytest.approx(length(generator), rel=1e-3)


def length(gradients):
    return math.sqrt(sum(g.square().sum().item() for g in gradients))


def test_vaegan_judges_an_image_alike_in_training_and_evaluation_and_whatever_is_beside_it():
    recipe = build("vaegan", image=(1, 16, 16), latent_dim=3, width=8, noise=0.0)
    (phase,) = recipe.phases(1)
    x = torch.rand(8, 1, 16, 16)
    for _ in range(5):
        phase.step(x, None, **phase.optimizers)
    beside = recipe.train().discriminate(torch.cat([x, torch.zeros_like(x)]))[:8]
    assert torch.allclose(beside, recipe.eval().discriminate(x), atol=1e-5)
