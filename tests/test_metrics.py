import math
from pathlib import Path

import numpy as np
import pytest
import torch

from aelab import recipe_files
from aelab.data.catalog import BUNDLED
from aelab.data.dataset import Split, split
from aelab.evaluation import evaluate_loss
from aelab.evaluation.reconstruction import PCA_BYTES, error_metrics, fit_pca, pca_baseline, pca_density, squared_errors
from aelab.metrics import DEFINITIONS, definition
from aelab.recipe import Autoencodes

BUILT_IN = ("gan", "linear", "stacked", "vae")


def images(count, shape, seed, rank=None):
    """Random images; of a low rank plus a little noise if one is given."""
    generator = np.random.default_rng(seed)
    pixels = math.prod(shape)
    if rank:
        x = generator.random((count, rank)) @ np.random.default_rng(0).random((rank, pixels)) / rank
        x += 0.05 * generator.random((count, pixels))
    else:
        x = generator.random((count, pixels))
    whole = torch.from_numpy((x.clip(0, 1) * 255).astype(np.uint8)).reshape(count, *shape)
    return Split(whole, torch.full((count,), -1))


def exact_error(train, test, dimension):
    """The error of the best projection there is, by the singular value decomposition."""
    x, y = (part.images.flatten(1).double() / 255 for part in (train, test))
    mean = x.mean(0)
    directions = torch.linalg.svd(x - mean, full_matrices=False)[2][:dimension]
    rest = (y - mean) - (y - mean) @ directions.T @ directions
    return float(rest.square().mean())


@pytest.mark.parametrize(
    ("count", "shape", "dimension", "rank"),
    [(50, (1, 6, 6), 1, None), (50, (1, 6, 6), 10, None), (40, (3, 5, 7), 12, 6), (900, (1, 8, 8), 20, None),
     (20, (1, 8, 8), 19, None), (200, (1, 4, 4), 15, None)],
)  # fmt: skip
def test_pca_is_the_singular_value_decomposition(count, shape, dimension, rank):
    train, test = images(count, shape, 1, rank), images(30, shape, 2, rank)
    for part in (train, test):
        got = pca_baseline(train, part, dimension)
        assert got["mse"] == pytest.approx(exact_error(train, part, dimension), rel=1e-5)
        assert got["sse"] == pytest.approx(got["mse"] * math.prod(shape))


@pytest.mark.parametrize("dimension", [5, 50])
def test_pca_of_more_images_is_the_optimum_too(dimension):
    train = images(600, (1, 10, 10), 1)
    assert pca_baseline(train, train, dimension)["mse"] == pytest.approx(exact_error(train, train, dimension), rel=1e-5)


def test_pca_of_mnist_is_the_optimum():
    data = split("mnist-5k", BUNDLED["mnist-5k"](), 0, "")
    assert pca_baseline(data.train, data.train, 200)["mse"] == pytest.approx(
        exact_error(data.train, data.train, 200), rel=1e-4
    )


def test_pca_components_are_orthonormal_and_clipped():
    for count, shape, asked, got in ((12, (1, 6, 6), 30, 11), (50, (1, 3, 3), 30, 9), (50, (1, 6, 6), 5, 5)):
        pca = fit_pca(images(count, shape, 0), asked)
        assert pca.components.shape == (got, math.prod(shape))
        torch.testing.assert_close(pca.components @ pca.components.T, torch.eye(got, dtype=torch.float64))


def test_pca_with_all_components_gives_the_training_images_back():
    train = images(12, (3, 6, 6), 0)
    x, _ = train.batch(slice(None))
    back = fit_pca(train, 100).reconstruct(x)
    assert back.shape == x.shape
    torch.testing.assert_close(back.float(), x, rtol=0, atol=1e-6)


def test_pca_does_not_look_at_the_test_images():
    train, test = images(60, (1, 5, 5), 0), images(20, (1, 5, 5), 1)
    pca = fit_pca(train, 4)
    x, _ = test.batch(slice(None))
    expected = float((x - pca.reconstruct(x)).square().mean())
    assert pca_baseline(train, test, 4)["mse"] == pytest.approx(expected, rel=1e-6)
    assert pca_baseline(train, test, 4)["mse"] > pca_baseline(train, train, 4)["mse"]


def test_pca_of_a_large_set_uses_every_nth_image(monkeypatch):
    train = images(60, (1, 5, 5), 0)
    assert train.images.nbytes * 8 < PCA_BYTES
    monkeypatch.setattr("aelab.evaluation.reconstruction.PCA_BYTES", 60 * 25 * 8 // 3)
    third = Split(train.images[::3], train.labels[::3])
    torch.testing.assert_close(fit_pca(train, 4).mean, third.images.flatten(1).double().mean(0) / 255)


def test_pca_baseline_weighs_every_image_alike(monkeypatch):
    train, test = images(60, (1, 3, 3), 0), images(1001, (1, 3, 3), 1)  # a block of 1000 and one of 1
    assert pca_baseline(train, test, 2)["mse"] == pytest.approx(exact_error(train, test, 2), rel=1e-5)


def test_squared_errors_are_one_mean_an_image():
    x = torch.rand(4, 3, 5, 5)
    y = x.clone()
    y[2] += 0.5
    y[3, 0, 0, 0] += 1
    errors = squared_errors(x, y)
    assert errors.dtype == torch.float64
    assert errors.tolist() == pytest.approx([0, 0, 0.25, 1 / 75], rel=1e-5)


@pytest.mark.parametrize("mse", [1.0, 0.25, 0.01, 3e-5])
def test_error_metrics_say_the_same_in_three_ways(mse):
    metrics = error_metrics(mse, 784)
    assert metrics["mse"] == mse
    assert metrics["sse"] == mse * 784
    assert 10 ** (-metrics["psnr"] / 10) == pytest.approx(mse)


def test_psnr_of_a_perfect_reconstruction_is_finite():
    assert error_metrics(0.0, 10) == {"mse": 0.0, "sse": 0.0, "psnr": pytest.approx(120)}


# definitions


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the recipes of this folder are not these tests' matter


def built(name):
    torch.manual_seed(0)
    return recipe_files.build(recipe_files.available()[name], (1, 8, 8), {})


def steps(recipe, x, y):
    """What one step of every phase returns."""
    return [phase.step(x, y, **phase.optimizers) for phase in recipe.phases(1)]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_metric_of_a_recipe_is_defined(name, elsewhere):
    recipe, x, y = built(name), torch.rand(4, 1, 8, 8), torch.zeros(4)
    loss, parts = recipe.loss(x, y)
    assert loss.shape == () and torch.isfinite(loss) and loss.requires_grad
    logged = {"loss", *parts}.union(*(step.keys() for step in steps(recipe, x, y)))
    for split_name in ("step", "train", "val", "test"):
        for metric in logged:
            found = definition(f"{split_name}/{metric}")
            assert found is not None and found.name == metric, metric


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_metric_of_an_evaluation_is_defined(name, elsewhere):
    recipe = built(name)
    metrics = evaluate_loss(recipe, images(7, (1, 8, 8), 0))
    assert all(definition(f"val/{name}") for name in metrics)
    assert ("psnr" in metrics) == isinstance(recipe, Autoencodes)


def test_unknown_metric_has_no_definition():
    assert definition("val/of_my_own") is None
    assert definition("mse") is definition("a/b/mse") is DEFINITIONS["mse"]


def test_the_elbo_is_minus_nll_and_kl(elsewhere):
    torch.manual_seed(0)
    recipe = recipe_files.build(recipe_files.available()["vae"], (1, 8, 8), {"beta": 4.0})
    loss, parts = recipe.loss(torch.rand(4, 1, 8, 8), torch.zeros(4))
    torch.testing.assert_close(parts["elbo"], -(parts["nll"] + parts["kl"]))
    torch.testing.assert_close(loss, parts["nll"] + 4 * parts["kl"])


def test_the_page_of_metrics_agrees_with_the_code():
    page = (Path(__file__).parent.parent / "docs" / "metrics.md").read_text(encoding="utf-8")
    rows = [
        (f"`{m.name}`", m.unit, m.better or "-", m.formula.replace("|", "&#124;"), m.known_as, m.source)
        for m in DEFINITIONS.values()
    ]
    assert [line for line in page.splitlines() if line.startswith("| `")] == [f"| {' | '.join(row)} |" for row in rows]
    assert all(m.known_as for m in DEFINITIONS.values())


@pytest.mark.parametrize(
    ("count", "shape", "dimension", "exact_pixels"),
    [(80, (1, 3, 4), 3, 4096), (30, (3, 4, 4), 3, 4096), (30, (3, 4, 4), 28, 4096), (80, (1, 3, 4), 3, 1),
     (30, (3, 4, 4), 3, 1), (30, (3, 4, 4), 28, 1)],
)  # fmt: skip
def test_pca_density_is_that_of_probabilistic_pca(count, shape, dimension, exact_pixels, monkeypatch):
    """Tipping & Bishop 1999, equations 8 and 15: N(m, W W^T + s^2 I) from the eigenvalues of the whole covariance.

    With more images than pixels and with fewer, where the noise is the mean over all P - D directions all the same. All are
    dequantised: to a covariance that adds 1/12 of a level's square, and the mean over draws of the test images is compared.
    """
    monkeypatch.setattr("aelab.evaluation.reconstruction.EXACT_PIXELS", exact_pixels)  # 1: the randomised decomposition
    train, test = images(count, shape, 0), images(1001, shape, 1)
    x, y = ((part.images.flatten(1).double() + 0.5) / 256 for part in (train, test))
    values, vectors = torch.linalg.eigh(torch.cov(x.T) + torch.eye(x.shape[1]) / 12 / 256**2)
    values, vectors = values.flip(0), vectors.flip(1)
    noise = values[dimension:].mean()
    w = vectors[:, :dimension] * (values[:dimension] - noise).sqrt()
    model = torch.distributions.MultivariateNormal(x.mean(0), w @ w.T + noise * torch.eye(x.shape[1]))
    pca = fit_pca(train, dimension)
    drawn = torch.stack([y + (torch.rand_like(y) - 0.5) / 256 for _ in range(50)])
    assert pca.noise == pytest.approx(float((noise - 1 / 12 / 256**2) * (256 / 255) ** 2), rel=1e-3)
    assert pca_density(pca, test)["elbo"] == pytest.approx(model.log_prob(drawn).mean().item(), rel=1e-3)


@pytest.mark.parametrize("exact_pixels", [4096, 1])
@pytest.mark.parametrize(("count", "dimension"), [(80, 12), (80, 40), (10, 9), (10, 10), (10, 12)])
def test_pca_has_no_density_where_no_noise_is_left(count, dimension, exact_pixels, monkeypatch):
    """Of 12 pixels: all of them are components, or the images span no more."""
    monkeypatch.setattr("aelab.evaluation.reconstruction.EXACT_PIXELS", exact_pixels)
    pca = fit_pca(images(count, (1, 3, 4), 0), dimension)
    assert len(pca.components) == min(dimension, count - 1, 12)
    assert pca_density(pca, images(50, (1, 3, 4), 1)) == {}


def test_pca_of_equal_images_has_no_density():
    train = Split(torch.full((10, 1, 3, 4), 7, dtype=torch.uint8), torch.full((10,), -1))
    assert pca_density(fit_pca(train, 2), train) == {}


def test_pca_as_long_as_the_image_gives_every_image_back():
    x = torch.rand(5, 1, 3, 3)
    assert torch.equal(fit_pca(images(50, (1, 3, 3), 0), 30).reconstruct(x), x)
