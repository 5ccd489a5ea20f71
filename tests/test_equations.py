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
    torch.manual_seed(7)  # the same draws, in the order of the recipe
    x = torch.bernoulli(grey)
    mu, log_var = recipe.posterior(x)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    nll = -Bernoulli(probs=recipe.decode(z)).log_prob(x).sum() / len(x)
    kl = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum() / len(x)
    assert parts["nll"].item() == pytest.approx(nll.item(), rel=1e-4)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    assert parts["elbo"].item() == pytest.approx(-(nll + kl).item(), rel=1e-4)
    assert loss.item() == pytest.approx((nll + beta * kl).item(), rel=1e-4)


def test_the_gap_of_the_elbo_is_the_divergence_from_the_true_posterior():
    """log p(x) - ELBO = KL(q(z|x) || p(z|x)), by quadrature over a code of one dimension."""
    recipe = build("vae", latent_dim=1, net="mlp", hidden=(16,)).double()
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    for x in recipe.observe(batch(3)[0].double()).split(1):
        with torch.no_grad():
            mu, log_var = (part.squeeze() for part in recipe.posterior(x))
            log_joint = recipe.log_likelihood(x.expand(len(z), -1, -1, -1), z[:, None]) + Normal(0.0, 1.0).log_prob(z)
        log_q = Normal(mu, (log_var / 2).exp()).log_prob(z)
        log_p = torch.trapezoid(log_joint.exp(), z).log()
        elbo = torch.trapezoid(log_q.exp() * (log_joint - log_q), z)
        gap = torch.trapezoid(log_q.exp() * (log_q - (log_joint - log_p)), z)
        assert gap > 1e-4 and (log_p - elbo).item() == pytest.approx(gap.item(), rel=1e-6)


def test_the_best_s_of_a_gaussian_vae_is_the_root_mean_squared_error_of_a_pixel():
    recipe = build("vae", latent_dim=2, likelihood="gaussian")
    x, _ = batch()
    z = recipe.encode(x)
    with torch.no_grad():
        recipe.log_s.copy_((recipe.decode(z) - x).square().mean().log() / 2)
    (slope,) = torch.autograd.grad(recipe.log_likelihood(x, z).mean(), recipe.log_s)
    assert slope.item() == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("s", [0.002, 0.02, 0.5, 20.0])
def test_the_logistic_vae_gives_the_256_levels_of_a_pixel_probabilities_that_sum_to_one(s):
    recipe = build("vae", image=(1, 1, 1), latent_dim=1, net="mlp", likelihood="logistic").double()
    x = (torch.arange(256, dtype=torch.float64) / 255).view(-1, 1, 1, 1)
    with torch.no_grad():
        recipe.log_s.fill_(math.log(s))
        for m in (-60.0, -2.0, 0.3, 60.0):  # before the sigmoid: at both ends, and between
            recipe.decoder[-2].weight.zero_()
            recipe.decoder[-2].bias.fill_(m)
            log_p = recipe.log_likelihood(x, torch.zeros(256, 1).double())
            assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)
            assert torch.isfinite(log_p).all(), "also where the difference of both sigmoids is 0 as a float"
            exact = torch.tensor([mass_of_level(k / 255, 1 / (1 + math.exp(-m)), s) for k in range(256)]).double()
            assert torch.allclose(log_p.exp(), exact, rtol=1e-5, atol=1e-12)
    x.requires_grad_()
    recipe.float().log_likelihood(x.float(), torch.zeros(256, 1)).sum().backward()
    assert torch.isfinite(recipe.log_s.grad) and recipe.log_s.grad != 0


def test_the_gradient_of_the_elbo_reaches_the_encoder_through_the_sample():
    recipe = build("vae", latent_dim=2, beta=0.0)
    recipe.loss(*batch())[0].backward()
    assert all(p.grad.abs().sum() > 0 for p in recipe.encoder.parameters())


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


@pytest.mark.parametrize("objective", ["minimax", "non-saturating"])
def test_gan_losses(objective):
    recipe = build("gan", loss=objective)
    real, fake = torch.randn(8, 1), torch.randn(8, 1)
    d = lambda logit: 1 / (1 + math.exp(-logit))  # noqa: E731
    value = sum(math.log(d(a)) for a in real) / 8 + sum(math.log(1 - d(b)) for b in fake) / 8
    assert recipe.discriminator_loss(real, fake).item() == pytest.approx(-value, rel=1e-4)
    wanted = {"minimax": lambda b: math.log(1 - d(b)), "non-saturating": lambda b: -math.log(d(b))}[objective]
    assert recipe.generator_loss(fake).item() == pytest.approx(sum(wanted(b) for b in fake) / 8, rel=1e-4)


def test_the_two_losses_of_the_generator_differ_by_d_over_one_minus_d():
    """d/dl log(1-D) = -D and d/dl -log D = -(1-D): the generator's gradients differ by D/(1-D)."""
    for logit in (-8.0, -1.0, 0.0, 2.0):
        gradients = {}
        for objective in ("minimax", "non-saturating"):
            fake = torch.tensor([[logit]], requires_grad=True)
            build("gan", loss=objective).generator_loss(fake).backward()
            gradients[objective] = fake.grad.item()
        d = 1 / (1 + math.exp(-logit))
        assert gradients["minimax"] / gradients["non-saturating"] == pytest.approx(d / (1 - d), rel=1e-3)


def test_each_optimizer_of_a_gan_moves_its_own_network_only():
    recipe = build("gan")
    phase = recipe.phases(1)[0]
    owners = {
        name: {id(p) for group in adam.param_groups for p in group["params"]} for name, adam in phase.optimizers.items()
    }
    assert owners["adam_d"] == {
        id(p) for net in (recipe.features, recipe.head, recipe.patches) for p in net.parameters()
    }
    assert owners["adam_g"] == {id(p) for p in recipe.generator.parameters()}


@pytest.mark.parametrize(("name", "copies"), [("gan", 1), ("vaegan", 2)])
def test_training_and_evaluation_report_the_same_metrics_of_both_losses(name, copies):
    """With the same draws and before any weight has moved; g_loss is that against the discriminator before its step."""
    recipe = build(name, image=(1, 8, 8), noise=0.0)
    x, y = torch.rand(6, 1, 8, 8), torch.zeros(6, dtype=torch.long)
    (phase,) = recipe.phases(1)
    for optimizer in phase.optimizers.values():
        optimizer.param_groups[0]["lr"] = 0.0
    seen = []
    recipe.eval()  # both then normalise by the same averages
    for compute in (lambda: recipe.loss(x, y)[1], lambda: phase.step(x, y, **phase.optimizers)):
        torch.manual_seed(4)
        seen.append(compute())
    for key in ("d_loss", "g_loss", "d_real", "d_fake"):
        assert seen[0][key].item() == pytest.approx(seen[1][key].item(), rel=1e-4), key
    torch.manual_seed(4)
    z = [recipe.draw(x)[0]] if name == "vaegan" else []
    x_fake = recipe.decode(torch.cat([*z, recipe.sample_prior(6)]))
    logits = (recipe.discriminate(x_fake, y) if name == "gan" else recipe.discriminate(x_fake)).detach()
    assert len(logits) == 6 * copies
    assert seen[0]["d_fake"].item() == pytest.approx(
        sum(1 / (1 + math.exp(-a)) for a in logits) / len(logits), rel=1e-4
    )


def test_the_best_discriminator_is_p_over_p_plus_q_and_its_loss_the_jensen_shannon_divergence():
    """Goodfellow et al. 2014, proposition 1 and theorem 1, of images that take three values; with smoothing, (1 - s) p."""
    p, q = torch.tensor([0.6, 0.3, 0.1]), torch.tensor([0.1, 0.3, 0.6])
    real, fake = (torch.repeat_interleave(torch.arange(3), (10 * weights).round().long()) for weights in (p, q))
    for smooth in (0.0, 0.1):
        recipe, logits = build("gan", smooth=smooth), torch.zeros(3, requires_grad=True)
        for _ in range(500):
            loss = recipe.discriminator_loss(logits[real], logits[fake])
            logits.data -= torch.autograd.grad(loss, logits)[0]
        assert torch.allclose(logits.sigmoid(), (1 - smooth) * p / (p + q), atol=1e-3)
        if not smooth:
            js = ((p * (2 * p / (p + q)).log()).sum() + (q * (2 * q / (p + q)).log()).sum()) / 2
            assert loss.item() == pytest.approx(2 * math.log(2) - 2 * js.item(), abs=1e-4)


@pytest.mark.parametrize("name", ["gan", "vaegan"])
def test_where_nothing_can_be_told_apart_the_discriminator_loss_is_2_log_2(name):
    assert build(name, image=(1, 8, 8)).discriminator_loss(
        torch.zeros(4, 1), torch.zeros(4, 1)
    ).item() == pytest.approx(2 * math.log(2))


def test_descend_moves_nothing_on_a_non_finite_gradient():
    weight = torch.nn.Parameter(torch.tensor([0.0]))
    adam = torch.optim.Adam([weight], 0.1)
    for loss in (weight.sum() * math.nan, weight.sqrt().sum()):  # sqrt'(0) is infinite though the loss is 0
        with pytest.raises(ArithmeticError):
            descend(loss, adam)
        assert weight.item() == 0.0 and not adam.state


def test_descend_leaves_other_weights_and_frozen_ones_alone():
    mine, other, frozen = (torch.nn.Parameter(torch.tensor([2.0])) for _ in range(3))
    frozen.requires_grad = False
    norm = descend((mine * other * frozen).sum(), torch.optim.SGD([mine, frozen], 0.1))
    assert norm.item() == 4.0 and mine.item() == pytest.approx(1.6)
    assert other.grad is None and other.item() == 2.0 and frozen.item() == 2.0


def test_descend_returns_the_norm_of_the_gradient():
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    assert descend((weight**2).sum() / 2, torch.optim.SGD([weight], 0.1)).item() == pytest.approx(5.0)


def mass_of_level(x, m, s):
    """The probability of the interval of a level x = k/255 under the logistic distribution of mean m and scale s."""

    def below(end):
        return 1 / (1 + math.exp((m - end) / s))

    k = round(255 * x)
    return (below((k + 0.5) / 255) if k < 255 else 1) - (below((k - 0.5) / 255) if k > 0 else 0)


def transcribed_log_weight(recipe, x, z):
    """log p(x|z) + log p(z) - log q(z|x) of one image and one code, pixel by pixel."""
    mu, log_var = (part[0].detach() for part in recipe.posterior(x[None]))
    m = recipe.decode(z[None])[0].flatten()
    total = 0.0
    for pixel, p in zip(x.flatten().tolist(), m.tolist(), strict=True):
        if recipe.binary:
            total += math.log(p if pixel else 1 - p)
        elif recipe.discrete:
            total += math.log(mass_of_level(pixel, p, recipe.log_s.exp().item()))
        else:
            s = recipe.log_s.exp().item()
            total += -((pixel - p) ** 2) / (2 * s * s) - math.log(s * math.sqrt(2 * math.pi))
    for d in range(len(z)):
        sigma = math.exp(log_var[d] / 2)
        total += -(z[d] ** 2) / 2 + ((z[d] - mu[d]) / sigma) ** 2 / 2 + math.log(sigma)
    return float(total)


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "logistic"])
def test_importance_weights(likelihood):
    recipe = build("vae", latent_dim=2, likelihood=likelihood).eval()  # batch normalisation by its averages
    x = recipe.observe(batch(3)[0])
    torch.manual_seed(5)
    weights = recipe.log_weights(x, 4)
    torch.manual_seed(5)
    mu, log_var = (values.detach() for values in recipe.posterior(x))
    z = mu + torch.exp(log_var / 2) * torch.randn(4, 3, 2)
    assert weights.shape == (4, 3)
    for k in range(4):
        for b in range(3):
            assert weights[k, b].item() == pytest.approx(transcribed_log_weight(recipe, x[b], z[k, b]), rel=1e-4)


def test_the_importance_weighted_bound_does_not_fall_with_k():
    """Burda et al. 2016, theorem 1: E log mean_k w_k rises with K; K = 1 is the ELBO."""
    recipe = build("vae", latent_dim=2).eval()
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

    recipe = build("vae", latent_dim=1).eval()
    images = (torch.rand(3, *IMAGE) > 0.5).to(torch.uint8) * 255
    grid = torch.linspace(-10, 10, 4001)
    with torch.no_grad():
        found = importance_nll(recipe, Split(images, torch.zeros(3).long()), 20000, lambda _: None)
        exact = []
        for image in images:
            x = (image / 255)[None].repeat(len(grid), 1, 1, 1)
            joint = recipe.log_likelihood(x, grid[:, None]) + Normal(0.0, 1.0).log_prob(grid)
            exact.append(-torch.log(torch.trapezoid(joint.double().exp(), grid.double())).item())
    assert found["marginal_nll"] == pytest.approx(sum(exact) / 3, abs=0.02)
    assert found["marginal_nll_se"] == pytest.approx(torch.tensor(exact).std().item() / math.sqrt(3), abs=0.02)


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


def test_a_denoiser_learns_the_mean_of_the_clean_images_and_with_it_the_score():
    """Tweedie: E[x|x~] = x~ + s^2 grad log p(x~), of two images that the noise confuses."""
    torch.manual_seed(3)
    clean = torch.tensor([0.3, 0.7]).view(2, 1, 1, 1).expand(2, *IMAGE)
    recipe = build("denoising", hidden=(64,), latent_dim=16, level=1.0, lr=3e-3)
    (phase,) = recipe.phases(1)
    for _ in range(400):
        phase.step(clean.repeat(128, 1, 1, 1), None, **phase.optimizers)
    noisy = recipe.corrupt(clean.repeat(100, 1, 1, 1)).requires_grad_()
    distances = (noisy.flatten(1)[:, None] - clean.flatten(1)).square().sum(2)  # (B, 2)
    (score,) = torch.autograd.grad((-distances / 2).logsumexp(1).sum(), noisy)
    mean = torch.einsum("bk,kchw->bchw", (-distances / 2).softmax(1), clean)
    assert torch.allclose(noisy + score, mean, atol=1e-5)
    error = (recipe.decode(recipe.encode(noisy)) - mean).square().mean().item()
    assert error < 0.05 * (clean.mean() - mean).square().mean().item()


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


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_recurrent_decoder_sees_the_code_at_every_step_and_no_row(cell):
    recipe = build("recurrent", cell=cell, hidden=6, latent_dim=3)
    z = torch.randn(2, 3)
    step = (torch.nn.LSTMCell if cell == "lstm" else torch.nn.GRUCell)(3, 6)
    step.load_state_dict({name.removesuffix("_l0"): value for name, value in recipe.writer.state_dict().items()})
    s = recipe.start(z).tanh()
    state, rows = (s, torch.zeros_like(s)) if cell == "lstm" else s, []
    for _ in range(4):
        state = step(z, state)
        rows.append(recipe.row(state[0] if cell == "lstm" else state).sigmoid())
    assert torch.allclose(recipe.decode(z), torch.stack(rows, 1)[:, None], atol=1e-6)


def linear_vae():
    """A linear VAE with a posterior that is not diagonal."""
    recipe = build("linear", latent_dim=3, variational=True)
    with torch.no_grad():
        recipe.root.copy_(torch.randn(3, 3) / 2)
    return recipe


def test_the_linear_vae_against_sampling():
    recipe = linear_vae()
    grey, y = batch(2)
    torch.manual_seed(6)
    loss, parts = recipe.loss(grey, y)
    torch.manual_seed(6)
    x = recipe.observe(grey)
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
        loss, parts = recipe.negative_elbo(x)  # of values that are given, not drawn anew
        descend(loss, *phase.optimizers.values())
        elbo = parts["elbo"].item()
        assert elbo < exact + 1e-3
    assert elbo == pytest.approx(exact.item(), abs=0.02)
    assert math.exp(2 * recipe.log_s.item()) == pytest.approx(noise.item(), rel=0.02), "the discarded eigenvalues' mean"


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
    probabilities = recipe.classify(x).softmax(1).detach()
    wanted = -sum(math.log(probabilities[b, y[b]]) for b in range(6)) / 6
    assert recipe.loss(x, y)[0].item() == pytest.approx(wanted, rel=1e-4)


def test_label_smoothing_asks_for_one_minus_smooth():
    real, fake = torch.randn(8, 1), torch.randn(8, 1)
    d = lambda logit: 1 / (1 + math.exp(-logit))  # noqa: E731
    wanted = -sum(0.9 * math.log(d(a)) + 0.1 * math.log(1 - d(a)) for a in real) / 8
    wanted -= sum(math.log(1 - d(b)) for b in fake) / 8
    assert build("gan", smooth=0.1).discriminator_loss(real, fake).item() == pytest.approx(wanted, rel=1e-4)


def test_vaegan_gives_each_network_the_gradient_of_its_own_loss():
    """Of G: gamma feature_loss + g_loss; of the encoder: kl + feature_loss. D has moved by then, and far."""
    recipe = build("vaegan", image=(1, 8, 8), latent_dim=3, width=8, gamma=0.5, noise=0.0)
    x = torch.rand(6, 1, 8, 8)
    twin = copy.deepcopy(recipe)
    discriminator = [*recipe.features.parameters(), *recipe.head.parameters()]
    vae = [*recipe.encoder.parameters(), *recipe.generator.parameters()]
    torch.manual_seed(4)
    metrics = recipe.training_step(x, None, SGD(discriminator, 0.5), SGD(vae, 1.0))
    torch.manual_seed(4)
    mu, log_var = twin.posterior(x)
    z = mu + (log_var / 2).exp() * torch.randn_like(mu)
    kl = kl_divergence(Normal(mu, (log_var / 2).exp()), Normal(0.0, 1.0)).sum() / 6
    fake = twin.decode(torch.cat([z.detach(), twin.sample_prior(6)]))
    d_real, d_fake = twin.discriminate(x).sigmoid(), twin.discriminate(fake.detach()).sigmoid()
    d_loss = -d_real.log().mean() - (1 - d_fake[:6]).log().mean() / 2 - (1 - d_fake[6:]).log().mean() / 2
    twins = [*twin.features.named_parameters(), *twin.head.named_parameters()]
    wanted = torch.autograd.grad(d_loss, [p for _, p in twins])
    for (name, old), new, gradient in zip(twins, discriminator, wanted, strict=True):
        assert torch.allclose(old - 0.5 * gradient, new, rtol=1e-4, atol=1e-6), name
    assert metrics["d_loss"].item() == pytest.approx(d_loss.item(), rel=1e-4)
    assert metrics["d_grad_norm"].item() == pytest.approx(length(wanted), rel=1e-4)

    twin.features.load_state_dict(recipe.features.state_dict())
    twin.head.load_state_dict(recipe.head.state_dict())
    feature_loss = (twin.features(twin.decode(z)) - twin.features(x).detach()).square().flatten(1).sum(1).mean() / 2
    d = twin.discriminate(fake).sigmoid()
    g_loss = -d[:6].log().mean() / 2 - d[6:].log().mean() / 2
    encoder = torch.autograd.grad(kl + feature_loss, list(twin.encoder.parameters()), retain_graph=True)
    generator = torch.autograd.grad(0.5 * feature_loss + g_loss, list(twin.generator.parameters()))
    old = [*twin.encoder.named_parameters(), *twin.generator.named_parameters()]
    steps = [*encoder, *(gradient / 0.5 for gradient in generator)]  # of G: 1/gamma times its loss
    for (name, before), after, step in zip(old, vae, steps, strict=True):
        assert torch.allclose(before - step, after, rtol=1e-3, atol=1e-5), name
    for name, value in {"kl": kl, "feature_loss": feature_loss, "g_loss": g_loss}.items():
        assert metrics[name].item() == pytest.approx(value.item(), rel=1e-4), name
    assert metrics["e_grad_norm"].item() == pytest.approx(length(encoder), rel=1e-3)
    assert metrics["g_grad_norm"].item() == pytest.approx(length(generator), rel=1e-3)


def length(gradients):
    return math.sqrt(sum(g.square().sum().item() for g in gradients))


def test_the_discriminator_of_vaegan_is_the_same_in_training_and_evaluation_and_whatever_else_is_in_the_batch():
    recipe = build("vaegan", image=(1, 16, 16), latent_dim=3, width=8, noise=0.0)
    (phase,) = recipe.phases(1)
    x = torch.rand(8, 1, 16, 16)
    for _ in range(5):
        phase.step(x, None, **phase.optimizers)
    beside = recipe.train().discriminate(torch.cat([x, torch.zeros_like(x)]))[:8]
    assert torch.allclose(beside, recipe.eval().discriminate(x), atol=1e-5)
