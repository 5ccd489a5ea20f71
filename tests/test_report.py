"""What a model is judged by: each figure on a case with a known answer, and the same whatever the batch size."""

import math

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from sklearn.neighbors import KernelDensity
from torchmetrics.image.kid import KernelInceptionDistance

from aelab import cookbook
from aelab.console import Screen
from aelab.data import Split, open_data
from aelab.metrics import BASELINES, CONTROLS, against, definition, generation
from aelab.metrics.codes import code_figures, intrinsic_dimension
from aelab.metrics.likelihood import importance_nll, independent_pixels
from aelab.metrics.reconstruction import reconstruction_figures, sharpness
from aelab.problem import Problem
from aelab.report import Report, report_of

QUIET = Screen(quiet=True)


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


@pytest.fixture
def few(monkeypatch):
    """Few samples: these tests are of the plumbing."""
    monkeypatch.setattr(generation, "MOST", 500)


def built(name, **options):
    torch.manual_seed(0)
    return cookbook.build(cookbook.pages()[name], (1, 8, 8), {"latent_dim": 6, **options}, 10)


def normal(n, dimension, seed, mean=0.0):
    return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed)) + mean


def split_of(x):
    return Split((x * 255).round().to(torch.uint8), torch.full((len(x),), -1))


# features


def test_distances_of_normals_are_known():
    """Dowson & Landau 1982: |m1 - m2|^2 where the covariances are equal."""
    real, far = normal(4000, 4, 0), normal(4000, 4, 1, mean=1.5)
    near = generation.distances(normal(4000, 4, 2), real, "lenet")
    figures = generation.distances(far, real, "lenet")
    assert figures["frechet_lenet"] == pytest.approx(4 * 1.5**2, rel=0.05)
    assert near["frechet_lenet"] < 0.02 and abs(near["kernel_lenet"]) < 0.01 < figures["kernel_lenet"]
    assert near["precision_lenet"] > 0.9 and near["coverage_lenet"] > 0.9
    assert near["density_lenet"] == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(("n", "k"), [(1203, 5), (6, 4)])
@pytest.mark.parametrize("kind", ["alike", "wider", "collapsed", "copies"])
def test_neighbourhoods_are_those_of_prdc(n, k, kind, capsys):
    """In blocks that do not divide the number, and of samples that are all one point or copies of real ones."""
    real, other = normal(n, 20, 0), normal(n, 20, 1)
    features = {"alike": other, "wider": 1.5 * other, "collapsed": other[:1].expand(n, -1), "copies": real.flip(0)}[
        kind
    ]
    found, known = generation.neighbourhoods(features, real, k), compute_prdc(real.numpy(), features.numpy(), k)
    assert found == pytest.approx({name: float(value) for name, value in known.items()}, abs=1e-9)


def test_the_kernel_distance_of_few_images_is_that_of_all_subsets():
    """Of 1,000 images at most each subset is the whole, so one is enough."""
    real, features = normal(200, 8, 0), normal(200, 8, 1, mean=0.3)
    given = torch.nn.Identity()
    given.num_features = 8
    metric = KernelInceptionDistance(given, subsets=20, subset_size=200)
    metric.update(real, real=True)
    metric.update(features, real=False)
    assert generation.distances(features, real, "lenet")["kernel_lenet"] == pytest.approx(
        float(metric.compute()[0]), rel=1e-4
    )


def test_distances_of_what_has_nothing_in_common():
    figures = generation.distances(normal(300, 8, 1, mean=50), normal(300, 8, 0), "lenet")
    assert [figures[f"{name}_lenet"] for name in ("precision", "recall", "density", "coverage")] == [0, 0, 0, 0]


def test_gaussian_images_have_the_moments_of_the_training_images():
    basis = normal(3, 16, 1)
    x = (0.5 + 0.05 * normal(400, 3, 0) @ basis).clamp(0, 1).reshape(400, 1, 4, 4)
    train = split_of(x)
    drawn = generation.gaussian_images(train, 20_000)
    truth = train.images.flatten(1).float() / 255
    assert drawn.shape == (20_000, 1, 4, 4)
    torch.testing.assert_close(drawn.flatten(1).mean(0), truth.mean(0), rtol=0, atol=0.005)
    torch.testing.assert_close(drawn.flatten(1).T.cov(), truth.T.cov(), rtol=0.1, atol=5e-4)


def test_the_nearest_training_image():
    train = split_of(torch.rand(4500, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    x = train.batch(torch.tensor([4321, 7, 2000]))[0]
    distance, which = generation.nearest(x + torch.tensor([0.0, 0.01, -0.01]).view(3, 1, 1, 1), train)
    assert which.tolist() == [4321, 7, 2000]
    torch.testing.assert_close(distance, torch.tensor([0, 0.03, 0.03]), rtol=0, atol=2e-3)


def test_a_parzen_window_is_a_kernel_density():
    centres, test = torch.rand(300, 1, 3, 3), split_of(torch.rand(700, 1, 3, 3))
    validation = split_of(torch.rand(1200, 1, 3, 3))
    scores = {}
    for sigma in generation.SIGMAS.tolist():
        density = KernelDensity(bandwidth=sigma).fit(centres.flatten(1).double().numpy())
        first, every = (density.score_samples(s.batch(slice(0, k))[0].flatten(1).double().numpy()).mean()
                        for s, k in ((validation, 1000), (test, 700)))  # fmt: skip
        scores[first] = every
    assert generation.parzen(centres, validation, test) == pytest.approx(scores[max(scores)], rel=1e-4)


def test_inception_takes_the_weights_of_a_file(tmp_path):
    from torchvision.models import inception_v3

    torch.save(inception_v3(weights=None, init_weights=False).state_dict(), tmp_path / "w.pth")
    extractor = generation.inception(tmp_path / "w.pth", torch.device("cpu"))
    assert extractor.name == "inception" and len(extractor.sha256) == 64
    assert extractor(torch.rand(2, 1, 8, 8)).shape == (2, 2048)
    (tmp_path / "other.pth").write_bytes(b"no weights")
    torch.save({"x": torch.ones(1)}, tmp_path / "third.pth")
    for name in ("other.pth", "third.pth", "missing.pth"):
        with pytest.raises(Problem, match=name):
            generation.inception(tmp_path / name, torch.device("cpu"))


# codes


def test_codes_that_tell_the_classes_apart_are_found_to():
    y = np.arange(300) % 3
    z = 20.0 * np.eye(3)[y] + np.random.default_rng(0).normal(size=(300, 3))
    figures = code_figures(z[:200], y[:200], z[200:], y[200:])
    assert figures["knn_accuracy"] == figures["probe_accuracy"] == 100
    assert figures["kmeans_nmi"] == pytest.approx(1)
    noise = np.random.default_rng(1).normal(size=(3000, 3))
    y = np.arange(3000) % 3
    chance = code_figures(noise[:2000], y[:2000], noise[2000:], y[2000:])
    assert chance["knn_accuracy"] == pytest.approx(33, abs=6) and chance["probe_accuracy"] == pytest.approx(33, abs=6)
    assert chance["kmeans_nmi"] < 0.02


def test_codes_without_labels_have_an_intrinsic_dimension_only():
    z, none = np.random.default_rng(0).normal(size=(50, 2)), np.full(50, -1)
    assert code_figures(z, none, z, none).keys() == {"intrinsic_dim"}
    partly = np.where(np.arange(50) < 20, np.arange(50) % 2, -1)
    assert "knn_accuracy" in code_figures(z, partly, z, partly)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_of_a_flat_piece_of_a_larger_space(dimension):
    generator = np.random.default_rng(0)
    codes = generator.random((4000, dimension)) @ generator.normal(size=(dimension, 12))
    assert intrinsic_dimension(codes) == pytest.approx(dimension, rel=0.1)
    assert intrinsic_dimension(np.zeros((10, 4))) is None


# reconstruction


def test_figures_of_a_perfect_and_of_a_blurred_reconstruction(digits):
    perfect, errors = reconstruction_figures(digits.test, lambda x: x, 64)
    assert perfect["ssim"] == pytest.approx(1) and perfect["recon_sharpness"] == pytest.approx(1)
    assert errors.shape == (len(digits.test),) and errors.max() == 0
    blurred, _ = reconstruction_figures(digits.test, lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1), 64)
    assert blurred["ssim"] < 0.9 and blurred["recon_sharpness"] < 0.5
    tiny = split_of(torch.rand(5, 1, 4, 5))
    assert "ssim" not in reconstruction_figures(tiny, lambda x: x, 2)[0], "the window does not fit"


def test_sharpness_is_the_variance_of_the_laplacian():
    assert sharpness(torch.full((2, 1, 6, 6), 0.3)).tolist() == pytest.approx([0, 0], abs=1e-9)
    x = torch.rand(1, 1, 4, 4)
    inner = [[x[0, 0, i - 1, j] + x[0, 0, i + 1, j] + x[0, 0, i, j - 1] + x[0, 0, i, j + 1] - 4 * x[0, 0, i, j]
              for j in (1, 2)] for i in (1, 2)]  # fmt: skip
    assert float(sharpness(x)) == pytest.approx(float(torch.tensor(inner).var()), rel=1e-5)


# likelihood


def test_independent_pixels_are_so_many_coins():
    train, test = split_of(torch.tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])), split_of(torch.tensor([[[[1.0, 0.0]]]]))
    chances = [2.5 / 3, 1.5 / 3]
    assert independent_pixels(train, test) == pytest.approx(-math.log(chances[0]) - math.log(1 - chances[1]))


def test_the_sampling_error_of_the_likelihood_falls_with_the_samples(digits):
    """By the square root of their number; it is what repeated estimates scatter by."""
    recipe = built("vae").eval()
    part = Split(digits.test.images[:50], digits.test.labels[:50])
    recipe.binary = False  # one and the same image in all estimates

    def estimate(samples, seed):
        torch.manual_seed(seed)
        with torch.no_grad():
            return importance_nll(recipe, part, samples, lambda done: None)

    few, many = (estimate(samples, 0)["iwae_nll_mc_se"] for samples in (50, 800))
    assert few / many == pytest.approx(4, rel=0.3)
    scatter = np.std([estimate(50, seed)["iwae_nll"] for seed in range(40)], ddof=1)
    assert scatter == pytest.approx(few, rel=0.4)


# a whole report


@pytest.mark.parametrize("name", ["vae", "gan", "pretrained", "recurrent", "denoising", "vaegan", "linear"])
def test_every_figure_of_a_report_is_defined_and_finite(name, digits, few):
    report = report_of(built(name), digits, QUIET, draws=4)
    assert [figure for figure in report.figures if definition(figure) is None] == []
    assert all(math.isfinite(value) for value in report.figures.values())
    own = [figure for figure in report.figures if not against(figure)[0]]
    rows = report.table()
    assert [row["metric"] for row in rows] == own
    assert any(row["baseline"] is not None and row["control"] is not None for row in rows)


def test_the_kl_of_the_dimensions_sums_up(digits, few):
    report = report_of(built("vae", likelihood="gaussian"), digits, QUIET, draws=0)
    assert len(report.lists["test-kl"]) == 6
    assert sum(report.lists["test-kl"]) == pytest.approx(report.figures["test/kl"], rel=1e-5)


def test_no_figure_depends_on_the_batch_size(digits, few):
    for recipe in (built("vae"), built("pretrained", labels=30)):
        small, large = (report_of(recipe, digits, QUIET, draws=4, batch_size=size).figures for size in (64, 1000))
        assert small.keys() == large.keys()
        for name, value in small.items():
            assert large[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_real_images_are_nearer_than_gaussian_ones_and_are_kept(digits, few, monkeypatch):
    first = report_of(built("gan"), digits, QUIET)
    for name in ("frechet_lenet", "kernel_lenet", "class_distance"):
        assert first.figures[f"test/real_{name}"] < first.figures[f"test/gaussian_{name}"]
    assert first.figures["test/real_parzen"] > first.figures["test/gaussian_parzen"]
    monkeypatch.setattr(generation, "gaussian_images", lambda *a: pytest.fail("computed again"))
    again = report_of(built("gan"), digits, QUIET)
    assert again.figures == first.figures and again.tags == first.tags
    assert len(first.tags["aelab.lenet_sha256"]) == 64


def test_a_table_puts_baseline_and_control_beside_each_figure():
    report = Report()
    report.add({"mse": 2.0, "kl": 1.0})
    report.add({"mse": 3.0}, "pca")
    report.add({"mse": 4.0}, "mean")
    mse, kl = report.table()
    assert mse == {"metric": "test/mse", "value": 2.0, "baseline": 3.0, "control": 4.0, "unit": "per pixel",
                   "baseline / control": "PCA / mean image"}  # fmt: skip
    assert (kl["baseline"], kl["control"], kl["baseline / control"]) == (None, None, "")
    (row, _) = report.under({"level": 0.25}).table()
    assert row["metric"] == "test/level-0.25/mse" and row["control"] == 4.0


def test_no_metric_is_called_as_if_it_were_a_baseline():
    from aelab.metrics import DEFINITIONS

    assert [name for name in DEFINITIONS if name.split("_")[0] in {**BASELINES, **CONTROLS}] == []
