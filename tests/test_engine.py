"""The training loop: the same seed gives the same numbers, and a run that was cut ends where a whole one ends."""

import math

import pytest
import torch
from driver import Fit, Interrupted, after, never, settings, settings_of

from aelab import recipe_files
from aelab.data import open_data
from aelab.errors import UserError
from aelab.evaluation import evaluate_loss
from aelab.tracking import Store
from aelab.training import Trainer, checkpoint

RECIPES = list(recipe_files.available())
SMALL = {  # what is compared here does not depend on the size of the networks
    "convolutional": {"width": 4},
    "denoising": {"hidden": (32,), "latent_dim": 16},
    "gan": {"hidden": 32, "width": 4},
    "pixelcnn": {"width": 8, "depth": 2},
    "pretrained": {"hidden": (32, 16), "latent_dim": 8, "finetune": 2},
    "rbm": {"latent_dim": 32},
    "recurrent": {"hidden": 16},
    "stacked": {"hidden": (32, 16)},
    "vae": {"hidden": (32,), "width": 4},
    "vaegan": {"width": 4},
}
TWO_PHASES = '''"""Two phases, two losses: x = g(f(x)) (2006)."""
import torch
from torch import nn
from aelab.recipe import Phase, Recipe, descend

class Twice(Recipe):
    def __init__(self, image, *, latent_dim: int = 3, lr: float = 1e-2) -> None:
        super().__init__()
        n = image[0] * image[1] * image[2]
        self.lr = lr
        self.f = nn.Sequential(nn.Flatten(), nn.Linear(n, latent_dim), nn.Dropout(0.2))
        self.g = nn.Sequential(nn.Linear(latent_dim, n), nn.Unflatten(1, image))

    def loss(self, x, y):
        return (self.g(self.f(x)) - x).square().mean(), {}

    def noisy(self, x, y, sgd):
        loss = (self.g(self.f(x + torch.randn_like(x))) - x).square().mean()
        descend(loss, sgd)
        return {"loss": loss}

    def phases(self, epochs):
        first = Phase("noisy", 1, self.noisy, sgd=torch.optim.SGD(self.parameters(), 0.1, momentum=0.9))
        return [first, *super().phases(epochs)]
'''


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


def training(name, data, folder, epochs=3, seed=0, options=None, **how):
    return Fit(name, data, folder, settings_of(name, settings(epochs, seed=seed), **how), options)


def weights(training):
    return {k: v.clone() for k, v in training.recipe.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def timeless(points):
    return {k: v for k, v in points.items() if "second" not in k[0]}


@pytest.mark.parametrize("name", RECIPES)
def test_the_same_seed_twice_gives_equal_numbers(name, digits, tmp_path):
    whole = []
    for number, seed in enumerate((5, 5, 6)):
        whole.append(training(name, digits, tmp_path / str(number), epochs=2, seed=seed, options=SMALL.get(name)))
        whole[-1].fit(never)
    assert same(weights(whole[0]), weights(whole[1]))
    assert timeless(whole[0].run.points) == timeless(whole[1].run.points)
    assert not same(weights(whole[0]), weights(whole[2]))


CUTS = (1, 20, 27, 41)  # an epoch has 20 steps: within the first, at its end, within two others


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, SMALL.get(name)) for name in (*RECIPES, "twice.py")]
    + [("pretrained", SMALL["pretrained"] | {"pretrain": False, "finetune": 1, "pseudo_label": 2, "labels": 20})],
)
def test_a_run_that_is_cut_again_and_again_ends_where_a_whole_one_ends(name, options, digits, tmp_path):
    (tmp_path / "twice.py").write_text(TWO_PHASES)
    whole = training(name, digits, tmp_path / "whole", options=options)
    whole.fit(never)
    part = training(name, digits, tmp_path / "cut", options=options)
    logged = {}
    for cut in CUTS:
        with pytest.raises(Interrupted):
            part.fit(after(cut - part.progress.step))
        logged |= part.run.points
        torch.manual_seed(999)  # another process: another random state
        part = training(name, digits, tmp_path / "cut", seed=0, options=options)
        last, best = (checkpoint.newest(tmp_path / "cut/checkpoints", kind, pytest.fail) for kind in ("last", "best"))
        part.restore(last, best)
        assert part.progress.step == cut
    part.fit(never)
    assert same(weights(whole), weights(part))
    assert same(whole.best_weights, part.best_weights)
    a, b = whole.state_dict(), part.state_dict()
    assert torch.equal(a["rng"], b["rng"])
    for p, q in zip(a["optimizers"], b["optimizers"], strict=True):
        for optimizer in p:
            for k, state in p[optimizer]["state"].items():
                assert all(
                    torch.equal(torch.as_tensor(v), torch.as_tensor(q[optimizer]["state"][k][n]))
                    for n, v in state.items()
                )
    assert timeless(logged | part.run.points) == timeless(whole.run.points)


def test_evaluation_does_not_touch_the_training(digits, tmp_path):
    fit = training("vae", digits, tmp_path)
    state = torch.get_rng_state()
    fit.recipe.train()
    first = evaluate_loss(fit.recipe, digits.val)
    assert torch.equal(torch.get_rng_state(), state) and fit.recipe.training
    torch.manual_seed(3)
    assert evaluate_loss(fit.recipe, digits.val) == first, "two evaluations differ by the weights alone"


def test_an_evaluation_weighs_by_image_not_by_batch(digits, tmp_path, monkeypatch):
    fit = training("stacked", digits, tmp_path)
    wanted = evaluate_loss(fit.recipe, digits.test)
    for block in (1, 64, 1000):
        monkeypatch.setattr("aelab.evaluation.loss.BLOCK", block)
        for name, value in evaluate_loss(fit.recipe, digits.test).items():
            assert value == pytest.approx(wanted[name], rel=1e-6)
    x, _ = digits.test.batch(slice(None))
    fit.recipe.eval()
    errors = (fit.recipe.decode(fit.recipe.encode(x)) - x).double().square()
    assert wanted["mse"] == pytest.approx(errors.mean().item(), rel=1e-5)
    assert wanted["sse"] == pytest.approx(errors.flatten(1).sum(1).mean().item(), rel=1e-5)
    assert wanted["psnr"] == pytest.approx(-10 * math.log10(errors.mean().item()), rel=1e-5)


def test_the_best_weights_are_those_of_the_best_validation(digits, tmp_path):
    fit = training("stacked", digits, tmp_path, epochs=4, options={"lr": 0.02})
    seen = {}
    keep = fit.trainer._keep_if_best
    fit.trainer._keep_if_best = lambda held: (seen.setdefault(held["loss"], weights(fit)), keep(held))[1]
    fit.fit(never)
    fit.keep_best()
    assert same(weights(fit), seen[min(seen)])
    assert evaluate_loss(fit.recipe, digits.val)["loss"] == min(seen)


def test_the_average_is_what_is_validated_and_kept(digits, tmp_path):
    fit = training("vae", digits, tmp_path, epochs=2, ema=0.9)
    fit.fit(never)
    raw = weights(fit)
    fit.keep_best()
    assert not same(raw, weights(fit))
    logged = [fit.run.points["val/loss", epoch] for epoch in (1, 2)]
    assert evaluate_loss(fit.recipe, digits.val)["loss"] == pytest.approx(min(logged), rel=1e-6)


def test_an_average_is_what_it_says(digits, tmp_path):
    fit = training("linear", digits, tmp_path, ema=0.25, max_steps=1)
    average, decays = None, iter((2 / 11, 0.25, 0.25, 0.25))  # 3/12 is the first that is not below 0.25
    step = fit.step

    def record(*arguments):
        nonlocal average
        skipped = step(*arguments)
        now = fit.recipe.b.detach().clone()
        average = now if average is None else torch.lerp(now, average, next(decays))
        return skipped

    fit.trainer.step = record
    fit.trainer.steps = 5
    fit.fit(never)
    assert torch.allclose(fit.best_weights["b"], average, atol=1e-7)


def test_max_steps_and_patience(digits, tmp_path):
    short = training("linear", digits, tmp_path / "a", epochs=9, max_steps=7)
    short.fit(never)
    assert short.progress.step == 7
    patient = training("stacked", digits, tmp_path / "b", epochs=50, patience=2, options={"lr": 1e-12})
    values = iter([5.0, 4.0, 4.5, 4.2, 1.0, 0.5])
    keep = patient.trainer._keep_if_best
    patient.trainer._keep_if_best = lambda held: keep({"loss": next(values)})
    patient.fit(never)
    assert patient.progress.epochs == 4, "two epochs without a better one"
    assert patient.progress.best == 4.0
    with pytest.raises(UserError, match="--patience"):
        training("linear", digits, tmp_path / "c", patience=2)  # its last weights are the best


def test_every_image_but_the_last_few_is_seen_once_an_epoch(digits, tmp_path):
    fit = training("linear", digits, tmp_path, epochs=1)
    seen = []
    fit.trainer.step = lambda phase, x, y: (seen.append(x), Trainer.step(fit.trainer, phase, x, y))[1]
    fit.fit(never)
    rows = torch.cat(seen).flatten(1)
    assert len(rows) == len(digits.train) // 64 * 64
    assert len(rows.unique(dim=0)) == len(rows)


def test_images_with_hidden_labels_fill_half_a_batch_and_all_are_seen(digits, tmp_path):
    fit = training(
        "pretrained", digits, tmp_path, options={"pretrain": False, "finetune": 0, "pseudo_label": 1, "labels": 20}
    )
    some, steps = digits.train.labelled(20, 0), []
    fit.trainer.step = lambda phase, x, y: (steps.append((x, y)), Trainer.step(fit.trainer, phase, x, y))[1]
    fit.fit(never)
    drawn = {tuple(row) for row in (some.images.flatten(1).float() / 255).tolist()}
    for x, y in steps:
        assert len(x) == 128 and (y[:64] >= 0).all() and (y[64:] == -1).all()
        assert {tuple(row) for row in x[:64].flatten(1).tolist()} <= drawn
    assert len(steps) == len(digits.train) // 64
    beside = torch.cat([x[64:] for x, _ in steps]).flatten(1)
    assert len(beside.unique(dim=0)) == len(beside)


def test_a_non_finite_loss_stops_before_the_weights_are_ruined(digits, tmp_path):
    fit = training("stacked", digits, tmp_path, options={"lr": 1e-3})
    real = fit.recipe.loss

    def poisoned(x, y):
        loss, parts = real(x, y)
        return (loss * math.nan if fit.progress.step == 5 else loss), parts

    fit.recipe.loss = poisoned
    with pytest.raises(UserError, match="before step 6"):
        fit.fit(never)
    assert all(torch.isfinite(p).all() for p in fit.recipe.parameters())


def test_images_are_logged_at_step_zero_and_each_epoch(digits, tmp_path):
    fit = training("vae", digits, tmp_path)
    fit.fit(never)
    assert fit.run.images == [
        (name, step) for step in range(4) for name in ("pictures/reconstructions", "pictures/samples")
    ]


def test_a_curve_by_step_has_a_bounded_number_of_points(digits, tmp_path, monkeypatch):
    monkeypatch.setattr("aelab.training.trainer.CURVE_POINTS", 10)
    fit = training("linear", digits, tmp_path)
    fit.fit(never)
    steps = [step for key, step in fit.run.points if key == "step/loss"]
    assert len(steps) == 10 and steps[-1] == 60


def test_a_full_disk_warns_and_fails_only_at_the_end(digits, tmp_path, monkeypatch, caplog):
    fit = training("linear", digits, tmp_path, epochs=1)

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("aelab.training.checkpoint.save", full)
    with pytest.raises(UserError, match="No space left"):
        fit.fit(never)
    assert fit.progress.epochs == 1, "it trained to the end"
    assert "No space left" in caplog.text


def test_a_checkpoint_of_other_options_is_refused(digits, tmp_path):
    fit = training("linear", digits, tmp_path, epochs=1)
    fit.fit(never)
    last = checkpoint.newest(tmp_path / "checkpoints", "last", pytest.fail)
    with pytest.raises(UserError, match="not of this recipe"):
        training("linear", digits, tmp_path, options={"latent_dim": 3}).restore(last, None)


def test_two_points_of_a_store_never_clash(tmp_path):
    store = Store()
    run = store.create(None, "a-", params={}, tags={"aelab.recipe": "linear", "aelab.kind": "run"})
    run.metrics({"x": 1.0}, 1)
    run.metrics({"x": 2.0}, 1)
    run.close("KILLED")
    again = store.reopen(store.get(run.id))
    again.metrics({"x": 3.0}, 1)
    again.metrics({"x": 4.0}, 2)
    again.close("FINISHED")
    history = [(p.step, p.value) for p in store.client.get_metric_history(run.id, "x")]
    assert history == [(1, 1.0), (2, 4.0)]


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [
        ("constant", lambda k: 1),
        ("linear", lambda k: 1 if k < 20 else (40 - k) / 20),
        ("cosine", lambda k: (1 + math.cos(math.pi * k / 40)) / 2),
    ],
)
def test_the_learning_rate_warms_up_and_follows_the_schedule(schedule, factor, digits, tmp_path):
    fit = training("linear", digits, tmp_path, epochs=2, options={"lr": 0.1}, schedule=schedule, warmup=4)
    seen = []
    step = fit.recipe.training_step
    fit.phases[0].step = lambda x, y, muon, adam: (
        seen.append((muon.param_groups[0]["lr"], adam.param_groups[0]["lr"])), step(x, y, muon=muon, adam=adam),
    )[1]  # fmt: skip
    fit.fit(never)
    wanted = [0.1 * min(1, (k + 1) / 5) * factor(k) for k in range(40)]
    assert [rate for both in seen for rate in both] == pytest.approx([k * rate for rate in wanted for k in (1, 4)])


@pytest.mark.parametrize(("schedule", "cut"), [("cosine", 7), ("linear", 33)])
def test_a_cut_run_with_schedule_and_average_ends_where_a_whole_one_ends(schedule, cut, digits, tmp_path):
    how = {"schedule": schedule, "warmup": 10, "ema": 0.9}
    whole = training("vae", digits, tmp_path / "whole", **how)
    whole.fit(never)
    first = training("vae", digits, tmp_path / "cut", **how)
    with pytest.raises(Interrupted):
        first.fit(after(cut))
    second = training("vae", digits, tmp_path / "cut", **how)
    second.restore(checkpoint.newest(tmp_path / "cut/checkpoints", "last", pytest.fail), None)
    second.fit(never)
    assert same(weights(whole), weights(second))
    assert same(whole.kept.state_dict(), second.kept.state_dict())


@pytest.mark.parametrize("max_steps", [None, 33])
def test_a_run_that_is_cut_at_its_very_last_step_still_validates_its_last_epoch(max_steps, digits, tmp_path):
    whole = training("stacked", digits, tmp_path / "whole", epochs=2, max_steps=max_steps)
    whole.fit(never)
    first = training("stacked", digits, tmp_path / "cut", epochs=2, max_steps=max_steps)
    with pytest.raises(Interrupted):
        first.fit(after(whole.steps))
    second = training("stacked", digits, tmp_path / "cut", epochs=2, max_steps=max_steps)
    second.restore(*(checkpoint.newest(tmp_path / "cut/checkpoints", kind, pytest.fail) for kind in ("last", "best")))
    second.fit(never)
    assert second.progress.step == whole.steps and same(weights(whole), weights(second))
    assert second.run.points["val/loss", 2] == whole.run.points["val/loss", 2]
    assert same(whole.best_weights, second.best_weights)


def test_a_validation_that_is_never_a_number_keeps_the_last_weights(digits, tmp_path):
    fit = training("stacked", digits, tmp_path, epochs=1)
    keep = fit.trainer._keep_if_best
    fit.trainer._keep_if_best = lambda held: keep({**held, "loss": math.nan})
    fit.fit(never)
    last = weights(fit)
    fit.keep_best()
    assert same(weights(fit), last)


def test_a_resume_without_its_best_checkpoint_goes_on(digits, tmp_path):
    first = training("stacked", digits, tmp_path, epochs=3)
    with pytest.raises(Interrupted):
        first.fit(after(30))
    second = training("stacked", digits, tmp_path, epochs=3)
    second.restore(checkpoint.newest(tmp_path / "checkpoints", "last", pytest.fail), None)
    second.fit(never)
    second.keep_best()
    assert second.best_weights and math.isfinite(second.progress.best)


@pytest.mark.parametrize("kept", [True, False], ids=["as it is saved today", "without Apple's"])
def test_the_random_state_of_apples_gpu_is_in_the_checkpoint(kept, digits, tmp_path, monkeypatch):
    """There is none here, so its generator is put in its place; a checkpoint from before it was kept still loads."""
    generator = torch.Generator().manual_seed(7)
    monkeypatch.setattr(torch.mps, "get_rng_state", generator.get_state)
    monkeypatch.setattr(torch.mps, "set_rng_state", generator.set_state)
    fit = training("linear", digits, tmp_path)
    fit.trainer.device = torch.device("mps")
    state = fit.state_dict()
    drawn = torch.rand(3, generator=generator)
    if not kept:
        del state["rng_mps"]
    checkpoint.save(tmp_path, "last", 0, fit.recipe.state_dict(), state, {})
    last = checkpoint.newest(tmp_path, "last", pytest.fail)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *a, **k: self)
    fit.restore(last, None)
    assert torch.equal(torch.rand(3, generator=generator), drawn) == kept
