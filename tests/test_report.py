"""The metrics of a report: each on a case with a known answer, and independent of the batch size."""

import math
import re
import time
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from prdc import compute_prdc
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KernelDensity, KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torchmetrics.image.kid import KernelInceptionDistance

from aelab import recipe_files
from aelab.cli import console
from aelab.cli.console import Console
from aelab.data import Split, open_data
from aelab.errors import UserError
from aelab.evaluation import Report, generation, measure
from aelab.evaluation.classifier import class_metrics
from aelab.evaluation.codes import code_metrics, intrinsic_dimension, random_projection
from aelab.evaluation.likelihood import importance_nll, independent_pixels
from aelab.evaluation.measure import spread
from aelab.evaluation.reconstruction import (
    filter_errors,
    fit_pca,
    noise_draws,
    pca_density,
    reconstruction_metrics,
    sharpness,
)
from aelab.metrics import BASELINES, CONTROLS, against, definition
from aelab.progress_bar import progress_bar
from aelab.recipe import Recipe


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


@pytest.fixture
def few(monkeypatch):
    """Few samples: these tests are of the plumbing."""
    monkeypatch.setattr(generation, "MAX_IMAGES", 500)


def built(name, **options):
    torch.manual_seed(0)
    return recipe_files.build(recipe_files.available()[name], (1, 8, 8), {"latent_dim": 6, **options}, 10)


def normal(n, dimension, seed, mean=0.0):
    return torch.randn(n, dimension, generator=torch.Generator().manual_seed(seed)) + mean


def split_of(x):
    return Split((x * 255).round().to(torch.uint8), torch.full((len(x),), -1))


# features


def test_distances_of_normals_are_known():
    """Dowson & Landau 1982: |m1 - m2|^2 where the covariances are equal."""
    real, far = normal(4000, 4, 0), normal(4000, 4, 1, mean=1.5)
    near = generation.distances(normal(4000, 4, 2), real, "lenet")
    metrics = generation.distances(far, real, "lenet")
    assert metrics["fd_lenet"] == pytest.approx(4 * 1.5**2, rel=0.05)
    assert near["fd_lenet"] < 0.02 and abs(near["kid_lenet"]) < 0.01 < metrics["kid_lenet"]
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


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance` will save all extracted features")
def test_the_kernel_distance_of_few_images_is_that_of_all_subsets():
    """Of 1,000 images at most each subset is the whole, so one is enough."""
    real, features = normal(200, 8, 0), normal(200, 8, 1, mean=0.3)
    given = torch.nn.Identity()
    given.num_features = 8
    metric = KernelInceptionDistance(given, subsets=20, subset_size=200)
    metric.update(real, real=True)
    metric.update(features, real=False)
    assert generation.distances(features, real, "lenet")["kid_lenet"] == pytest.approx(
        float(metric.compute()[0]), rel=1e-4
    )


def test_distances_of_what_has_nothing_in_common():
    metrics = generation.distances(normal(300, 8, 1, mean=50), normal(300, 8, 0), "lenet")
    assert [metrics[f"{name}_lenet"] for name in ("precision", "recall", "density", "coverage")] == [0, 0, 0, 0]


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
        with pytest.raises(UserError, match=name):
            generation.inception(tmp_path / name, torch.device("cpu"))


# codes


def test_codes_that_tell_the_classes_apart_are_found_to():
    y = np.arange(300) % 3
    z = 20.0 * np.eye(3)[y] + np.random.default_rng(0).normal(size=(300, 3))
    metrics = code_metrics(z[:200], y[:200], z[200:], y[200:])
    assert metrics["knn_accuracy"] == metrics["probe_accuracy"] == 100
    assert metrics["kmeans_nmi"] == pytest.approx(1)
    noise = np.random.default_rng(1).normal(size=(3000, 3))
    y = np.arange(3000) % 3
    chance = code_metrics(noise[:2000], y[:2000], noise[2000:], y[2000:])
    assert chance["knn_accuracy"] == pytest.approx(33, abs=6) and chance["probe_accuracy"] == pytest.approx(33, abs=6)
    assert chance["kmeans_nmi"] < 0.02


def test_codes_without_labels_have_an_intrinsic_dimension_only():
    z, none = np.random.default_rng(0).normal(size=(50, 2)), np.full(50, -1)
    assert code_metrics(z, none, z, none).keys() == {"intrinsic_dim"}
    partly = np.where(np.arange(50) < 20, np.arange(50) % 2, -1)
    assert "knn_accuracy" in code_metrics(z, partly, z, partly)


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_intrinsic_dimension_of_a_flat_piece_of_a_larger_space(dimension):
    generator = np.random.default_rng(0)
    codes = generator.random((4000, dimension)) @ generator.normal(size=(dimension, 12))
    assert intrinsic_dimension(codes) == pytest.approx(dimension, rel=0.1)
    assert intrinsic_dimension(np.zeros((10, 4))) is None


@pytest.mark.parametrize("labels", [30, 0])
def test_neighbours_and_probes_see_the_labels_of_the_training_alone(labels, digits, few):
    """The same draw as the training's, for the model, the PCA and the random projection."""
    recipe = built("pretrained", labels=labels).eval()
    metrics = measure(recipe, digits, seed=3).metrics
    seen = digits.train.labelled(labels, 3) if labels else digits.train
    images = [part.batch(slice(None))[0] for part in (seen, digits.test)]
    with torch.no_grad():
        own = [recipe.encode(x).double().numpy() for x in images]
    pca = PCA(6, svd_solver="full").fit(digits.train.images.flatten(1).numpy() / 255)
    linear = [pca.transform(x.flatten(1).double().numpy()) for x in images]
    random = [x.flatten(1).double().numpy() @ random_projection(64, 6) for x in images]
    for of, (train, test) in {"": own, "pca_": linear, "random_": random}.items():
        found = KNeighborsClassifier(5).fit(train, seen.labels).score(test, digits.test.labels)
        assert metrics[f"test/{of}knn_accuracy"] == pytest.approx(100 * found)
        scale = StandardScaler().fit(train)
        probe = LogisticRegression(max_iter=300).fit(scale.transform(train), seen.labels)
        found = probe.score(scale.transform(test), digits.test.labels)
        assert metrics[f"test/{of}probe_accuracy"] == pytest.approx(100 * found, abs=0.6)


# reconstruction


@pytest.mark.parametrize("draw", ["normal", "masking"])
def test_the_linear_filter_is_that_of_least_squares_and_is_clipped(draw, digits):
    """Independently by scikit-learn, from the same draws of the noise; what is left alone is clipped too."""

    def noisy(x, generator):
        noise = torch.randn(x.shape, generator=generator)
        return x + 0.5 * noise if draw == "normal" else x * (noise > 0)

    generator = torch.Generator().manual_seed(0)
    found = filter_errors(digits.train, digits.test, lambda x: noisy(x, generator), 100)
    generator = torch.Generator().manual_seed(0)
    parts = ([digits.train] * noise_draws(digits.train), [digits.test])
    train, test = ([(noisy(x, generator), x) for split in part for x, _ in split.blocks(100)] for part in parts)
    (seen, clean), (corrupted, truth) = ([torch.cat(column).flatten(1).double() for column in zip(*pairs, strict=True)]
                                      for pairs in (train, test))  # fmt: skip
    model = Ridge(1e-3).fit(seen.numpy(), clean.numpy())
    filtered = torch.from_numpy(model.predict(corrupted.numpy()))
    for metrics, output in zip(found, (filtered, corrupted), strict=True):
        clipped = float((output.clamp(0, 1) - truth).square().mean())
        assert metrics["denoised_mse"] == pytest.approx(clipped, rel=1e-3)
        assert metrics["denoised_psnr"] == pytest.approx(-10 * math.log10(clipped), abs=0.01)
    assert found[0]["denoised_mse"] < float((filtered - truth).square().mean()) - 1e-4


def test_the_linear_filter_of_few_images_is_the_wiener_filter(digits):
    """In closed form: the second moments of 40 images, and of the noise what it is."""
    few = replace(digits.train, images=digits.train.images[:40], labels=digits.train.labels[:40])
    found = filter_errors(few, digits.test, lambda x: x + 0.3 * torch.randn(x.shape), 100)[0]
    clean, truth = (part.images.flatten(1).double() / 255 for part in (few, digits.test))
    mean, centred = clean.mean(0), clean - clean.mean(0)
    covariance = centred.T @ centred / len(few)
    weights = torch.linalg.solve(covariance + 0.09 * torch.eye(64), covariance)
    noise = 0.3 * torch.randn(50, *truth.shape)
    filtered = ((truth + noise - mean) @ weights + mean).clamp(0, 1)
    wanted = -10 * math.log10(float((filtered - truth).square().mean()))
    assert found["denoised_psnr"] == pytest.approx(wanted, abs=0.1), "from one draw of the noise: 1 dB less"


def test_metrics_of_a_perfect_and_of_a_blurred_reconstruction(digits):
    perfect, errors = reconstruction_metrics(digits.test, lambda x: x, 64)
    assert perfect["ssim"] == pytest.approx(1) and perfect["recon_sharpness"] == pytest.approx(1)
    assert errors.shape == (len(digits.test),) and errors.max() == 0
    blurred, _ = reconstruction_metrics(digits.test, lambda x: torch.nn.functional.avg_pool2d(x, 3, 1, 1), 64)
    assert blurred["ssim"] < 0.9 and blurred["recon_sharpness"] < 0.5
    tiny = split_of(torch.rand(5, 1, 4, 5))
    assert "ssim" not in reconstruction_metrics(tiny, lambda x: x, 2)[0], "the window does not fit"


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

    few, many = (estimate(samples, 0)["marginal_nll_mc_se"] for samples in (50, 800))
    assert few / many == pytest.approx(4, rel=0.3)
    scatter = np.std([estimate(50, seed)["marginal_nll"] for seed in range(40)], ddof=1)
    assert scatter == pytest.approx(few, rel=0.4)


def test_the_likelihood_of_some_images_stands_beside_the_pca_of_the_same(digits):
    recipe = built("vae", likelihood="gaussian").eval()
    metrics = measure(recipe, digits, draws=4, images=50, plain=True).metrics
    chosen = spread(digits.test, 50)
    assert metrics["test/marginal_nll_images"] == len(chosen) == 50
    pca = fit_pca(digits.train, 6)
    assert metrics["test/pca_marginal_nll"] == pytest.approx(-pca_density(pca, chosen)["elbo"])
    assert metrics["test/pca_elbo"] == pytest.approx(pca_density(pca, digits.test)["elbo"])
    assert metrics["test/pca_elbo"] != pytest.approx(-metrics["test/pca_marginal_nll"], abs=1e-3)


# a whole report


class Copies(Recipe):
    """Samples that are training images, evenly spread: those that stand in the row of real images."""

    def __init__(self, data, n):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        chosen = torch.linspace(0, len(data.train) - 1, n).long()
        self.images, self.given = data.train.batch(chosen)[0], 0

    def loss(self, x, y):
        return self.weight.sum(), {}

    def sample_prior(self, n):
        self.given += n
        return torch.arange(self.given - n, self.given) % len(self.images)

    def decode(self, z):
        return self.images[z]


@pytest.mark.parametrize("cut", [None, 200])
def test_real_images_as_samples_have_the_metrics_of_real_images(cut, digits):
    """In all metrics as many are compared: with fewer test images than the most, and with still fewer training images."""
    data = replace(digits, train=Split(digits.train.images[:cut], digits.train.labels[:cut]), fingerprint=f"{cut}")
    n = min(len(data.test), len(data.train))
    report = measure(Copies(data, n), data)
    metrics = report.metrics
    assert report.tags["aelab.compared_samples"] == str(n) and any(f"{n:,} samples" in note for note in report.notes)
    for name in ("parzen", "sharpness", "fd_lenet", "kid_lenet", "precision_lenet", "recall_lenet",
                 "density_lenet", "coverage_lenet", "classes", "class_distance", "inception_score_lenet"):  # fmt: skip
        assert metrics[f"test/{name}"] == pytest.approx(metrics[f"test/real_{name}"], rel=1e-5, abs=1e-9), name
    gaussian = generation.gaussian_images(data.train, n)
    assert metrics["test/gaussian_parzen"] == pytest.approx(generation.parzen(gaussian, data.val, data.test), rel=1e-5)
    assert metrics["test/nearest"] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("name", ["vae", "gan", "pretrained", "recurrent", "denoising", "vaegan", "linear"])
def test_every_metric_of_a_report_is_defined_and_finite(name, digits, few):
    report = measure(built(name), digits, draws=4)
    assert [metric for metric in report.metrics if definition(metric) is None] == []
    assert all(math.isfinite(value) for value in report.metrics.values())
    own = [metric for metric in report.metrics if not against(metric)[0]]
    rows = report.table()
    assert {row["metric"] for row in rows} == set(own) and len(rows) == len(own)
    assert any(row["baseline"] is not None and row["control"] is not None for row in rows)


def test_the_kl_of_the_dimensions_sums_up(digits, few):
    report = measure(built("vae", likelihood="gaussian"), digits, draws=0)
    assert len(report.lists["test-kl"]) == 6
    assert sum(report.lists["test-kl"]) == pytest.approx(report.metrics["test/kl"], rel=1e-3)  # other draws


def test_no_metric_depends_on_the_batch_size(digits, few):
    for recipe in (built("vae"), built("pretrained", labels=30)):
        small, large = (measure(recipe, digits, draws=4, batch_size=size).metrics for size in (64, 1000))
        assert small.keys() == large.keys()
        for name, value in small.items():
            assert large[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_real_images_are_nearer_than_gaussian_ones_and_are_kept(digits, few, monkeypatch):
    first = measure(built("gan"), digits)
    for name in ("fd_lenet", "kid_lenet", "class_distance"):
        assert first.metrics[f"test/real_{name}"] < first.metrics[f"test/gaussian_{name}"]
    assert 0 < first.metrics["test/real_unsure"] < 30, "of test images, which the classifier has not seen"
    assert first.metrics["test/real_parzen"] > first.metrics["test/gaussian_parzen"]
    monkeypatch.setattr(generation, "gaussian_images", lambda *a: pytest.fail("computed again"))
    again = measure(built("gan"), digits)
    assert again.metrics == first.metrics and again.tags == first.tags
    assert len(first.tags["aelab.lenet_sha256"]) == 64


def test_a_table_puts_baseline_and_control_beside_each_metric():
    report = Report()
    report.add({"mse": 2.0, "kl": 1.0})
    report.add({"mse": 3.0}, "pca")
    report.add({"mse": 4.0}, "mean")
    mse, kl = report.table()
    assert mse == {"metric": "test/mse", "better": "lower", "value": 2.0, "baseline": 3.0, "control": 4.0,
                   "unit": "per pixel", "section": "reconstruction (baseline: PCA, control: mean image)"}  # fmt: skip
    assert (kl["baseline"], kl["control"], kl["better"], kl["section"]) == (None, None, "", "likelihood")
    (row, _) = report.under({"level": 0.25}).table()
    assert row["metric"] == "test/level-0.25/mse" and row["control"] == 4.0


def test_no_metric_is_called_as_if_it_were_a_baseline():
    from aelab.metrics import DEFINITIONS

    assert [name for name in DEFINITIONS if name.split("_")[0] in {**BASELINES, **CONTROLS}] == []


# what is shown while it runs


def test_where_no_bar_is_seen_a_long_stage_says_now_and_then_how_far_it_is(monkeypatch, capsys):
    """Also a stage that has no parts, such as a PCA; work that logs its progress itself, such as a training, is left out."""
    monkeypatch.setattr(console, "FIRST_LINE", 0.02)
    monkeypatch.setattr(console, "NEXT_LINE", 0.04)
    Console()
    for title, lines in (("likelihood", True), ("PCA", True), ("epochs", False)):
        with progress_bar(title, 100, 20, lines=lines) as bar:
            if title != "PCA":
                bar.advance(20)
            time.sleep(0.2)
    said = capsys.readouterr().err.splitlines()
    assert 4 <= len(said) <= 16 and {line for line in said if "likelihood" not in line} == {"PCA ..."}
    assert all(re.fullmatch(r"likelihood: 40 % done, about \d+ s left|PCA \.\.\.", line) for line in said)


def test_a_short_stage_says_nothing(capsys):
    Console()
    with progress_bar("likelihood", 100) as bar:
        bar.advance(90)
    assert capsys.readouterr().err == ""


def test_the_first_evaluation_says_before_what_is_made_once(digits, few, capsys):
    """Also where there are no classes: nothing that is the model's is computed again the next time."""
    for data, lines in ((digits, 3), (replace(digits, classes=(), fingerprint="without"), 1)):
        Console()
        measure(built("gan"), data)
        assert capsys.readouterr().err.count("first evaluation of samples on digits") == lines
        measure(built("gan"), data)
        assert "first evaluation" not in capsys.readouterr().err


def test_no_warning_of_a_dependency_reaches_the_caller():
    """Such as torchmetrics' that it keeps all features in memory."""
    features = torch.randn(40, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generation.distances(features, torch.randn(40, 8), "lenet")
        class_metrics(features)
