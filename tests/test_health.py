"""Each fault is found where it is, and not where it is not; one cause gives one sentence."""

import math

import pytest
import torch
from torch import nn

from aelab import recipe_files
from aelab.data import open_data
from aelab.evaluation.diagnostics import Diagnosis, diagnose, diagnose_test
from aelab.recipe import Recipe

ENOUGH = 1000  # steps


@pytest.fixture(scope="module")
def digits():
    return open_data("digits")


@pytest.fixture(scope="module")
def mnist():
    return open_data("mnist-5k")


def build(name, **options):
    return recipe_files.build(recipe_files.find(name), (1, 8, 8), options, 10)


def faults(recipe, data, validation=None, history=(1.0, 1.0), steps=ENOUGH):
    return diagnose(recipe, data, validation or {}, history, steps).faults


class Generator(Recipe):
    """Draws from given images, over and over, and adds some noise: what a generator with just these modes does."""

    def __init__(self, images, noise=0.0):
        super().__init__()
        self.images, self.noise, self.w = images, noise, nn.Parameter(torch.zeros(1))

    def sample_prior(self, n):
        return torch.cat([torch.randint(len(self.images), (n, 1)), torch.randn(n, self.images[0].numel())], 1)

    def decode(self, z):
        images = self.images[z[:, 0].long()]
        return (images + self.noise * z[:, 1:].reshape(images.shape)).clamp(0, 1)


class Gaussian(Recipe):
    """Continuous: normal draws with the mean and covariance of the training images, no two of them alike."""

    def __init__(self, data):
        super().__init__()
        x = data.train.images.flatten(1).float() / 255
        self.shape, self.mean, self.w = data.image, x.mean(0), nn.Parameter(torch.zeros(1))
        self.centred = (x - self.mean) / len(x) ** 0.5

    def sample_prior(self, n):
        return torch.randn(n, len(self.centred))

    def decode(self, z):
        return (self.mean + z @ self.centred).clamp(0, 1).reshape(-1, *self.shape)


def of_classes(data, *classes):
    return data.train.images[torch.isin(data.train.labels, torch.tensor(classes))].float() / 255


@pytest.fixture(params=["digits", "mnist"])
def data(request):
    return request.getfixturevalue(request.param)


def test_samples_that_are_as_varied_as_images_are_good(data):
    for split in (data.val, data.test, data.train):
        assert faults(Generator(split.images.float() / 255), data) == []
    assert faults(Gaussian(data), data) == []


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_a_few_images_over_and_over_are_a_collapse(noise, data):
    (line,) = faults(Generator(data.val.images[:1].float() / 255, noise), data)
    assert line == "mode collapse: all samples are one image; try another --seed or a smaller --lr"
    for count in (2, 10, 50):
        (line,) = faults(Generator(data.val.images[:count].float() / 255, noise), data)
        shown = int(line.removeprefix("mode collapse: 1,000 samples show about ").split()[0])
        assert 0.9 * count <= shown <= 1.1 * count, line


def test_missing_classes_are_a_collapse_and_are_named(data):
    (line,) = faults(Generator(of_classes(data, 8)), data)
    assert line.startswith("mode collapse: 9 of 10 classes hardly occur among the samples (0, 1, 2, 3, 4, 5, 6, 7, 9);")
    (line,) = faults(Generator(of_classes(data, *range(8))), data)
    assert line.startswith("mode collapse: 2 of 10 classes hardly occur among the samples (8, 9);")


def test_blurred_samples_that_lack_a_class_are_those_of_an_under_trained_model(mnist):
    """As of a VAE after one epoch of MNIST, which draws hardly any 2; a single class is a collapse, blurred or not."""

    def blurred(*classes):
        return Generator(nn.functional.avg_pool2d(of_classes(mnist, *classes), 3, 1, 1))

    (line,) = faults(blurred(0, 1, 3, 4, 5, 6, 7, 8, 9), mnist)
    assert line == (
        "under-trained: samples are blurred, and 1 of 10 classes hardly occur among the samples (2); try more --epochs"
    )
    assert faults(blurred(*range(10)), mnist) == []
    (line,) = faults(blurred(8), mnist)
    assert line.startswith("mode collapse: 9 of 10 classes")


def test_a_rare_class_is_not_a_missing_one(data):
    """A class with an eighth of its share is there; only below a tenth it counts as missing."""
    images = [of_classes(data, *range(9)), of_classes(data, 9)]
    rare = images[1][: len(images[0]) // 9 // 6]
    assert faults(Generator(torch.cat([images[0], rare])), data) == []


def test_classes_that_the_nearest_image_does_not_tell_are_not_missed(digits):
    from dataclasses import replace

    shuffled = digits.train.labels[torch.randperm(len(digits.train))]
    unclear = replace(digits, train=replace(digits.train, labels=shuffled))
    assert faults(Generator(of_classes(digits, *range(8))), unclear) == []
    unlabelled = replace(digits, train=replace(digits.train, labels=torch.full_like(shuffled, -1)))
    assert faults(Generator(of_classes(digits, *range(8))), unlabelled) == []


def test_blurred_samples_are_those_of_an_under_trained_model(data):
    """As of a VAE after ten epochs on 5,000 images: all near the mean image, though different."""

    class Faint(Gaussian):
        def decode(self, z):
            codes = (self.mean + 0.35 * (super().decode(z).flatten(1) - self.mean)).reshape(-1, *self.shape)
            return nn.functional.avg_pool2d(codes, 3, 1, 1)

    faint = Faint(data)
    (line,) = faults(faint, data)
    assert line.startswith("under-trained: samples are blurred and vary ") and line.endswith("try more --epochs")
    faint.beta = 6.0
    assert faults(faint, data)[0].endswith("try more --epochs or --beta 1"), "which blurs samples too"


def test_sharp_samples_that_hardly_differ_are_a_collapse(data):
    x = data.val.images.float() / 255
    (line,) = faults(Generator((x[:1] + 0.35 * x).clamp(0, 1)), data)
    assert line.startswith("mode collapse: samples vary ") and "as much as images do" in line


def test_few_pictures_give_no_diagnosis_of_samples(digits):
    from dataclasses import replace

    few = replace(digits, val=replace(digits.val, images=digits.val.images[:3], labels=digits.val.labels[:3]))
    assert faults(Generator(digits.val.images[:1].float() / 255), few) == []


def test_large_pictures_are_compared_small(digits):
    from dataclasses import replace

    def larger(split):
        return replace(split, images=split.images.repeat_interleave(10, 2).repeat_interleave(10, 3))

    large = replace(digits, train=larger(digits.train), val=larger(digits.val))
    assert faults(Generator(large.val.images.float() / 255), large) == []
    (line,) = faults(Generator(large.val.images[:2].float() / 255), large)
    assert "1,000 samples show about 2 different images" in line


# codes


def encoder(active, shift=4.0):
    """A VAE of six dimensions of which so many tell of the image; the others follow the prior."""
    recipe = build("vae", latent_dim=6, net="mlp")
    with torch.no_grad():
        last = recipe.encoder[-1]
        last.weight.zero_(), last.bias.zero_()
        last.weight[:active] = shift * torch.randn_like(last.weight[:active])
        recipe.decoder[0].weight.mul_(20)  # a decoder that listens
    return recipe


def test_a_code_that_says_nothing_is_a_collapse(digits):
    (line,) = faults(encoder(0), digits)
    said = "posterior collapse: the decoder ignores the code (KL 0 nats, 0 of 6 dimensions used);"
    assert line == f"{said} try more --epochs or less weight on the KL term (--beta is 1)"
    (line,) = faults(encoder(1, 0.1), digits)
    assert line.startswith("posterior collapse: the decoder ignores the code (KL 0.")


def test_a_decoder_that_does_not_listen_is_the_same_collapse(digits):
    recipe = encoder(4)
    with torch.no_grad():
        recipe.decoder[0].weight.zero_()
    (line,) = faults(recipe, digits)
    assert line.startswith("posterior collapse: the decoder ignores the code") and "4 of 6 dimensions used" in line


def test_spare_dimensions_are_no_fault(digits):
    for used in (1, 4, 6):
        found = diagnose(encoder(used, 20.0), digits, {}, (1.0, 1.0), ENOUGH)
        assert not [line for line in found.faults if "posterior" in line or "dead" in line]
        note = f"{used} of 6 dimensions of the code are used; the rest follow the prior"
        assert found.notes == ([note] if used < 6 else [])


def test_reconstructions_out_of_range_or_all_alike(digits):
    recipe = build("linear", latent_dim=3)
    with torch.no_grad():
        recipe.v.weight.zero_()
        recipe.b.fill_(0.5)
    assert faults(recipe, digits) == ["dead code: all reconstructions are alike; try a smaller --lr"]
    with torch.no_grad():
        recipe.v.weight.normal_()
        recipe.b.fill_(-3.0)
    (line,) = faults(recipe, digits)
    assert line.startswith("output range: reconstructions go from -")


def test_the_best_linear_code_is_good_though_it_leaves_the_range_of_pixels(mnist):
    from aelab.evaluation.reconstruction import fit_pca

    pca = fit_pca(mnist.train, 10)
    recipe = recipe_files.build(recipe_files.find("linear"), (1, 28, 28), {"latent_dim": 10}, 10)
    recipe.encode, recipe.decode = pca.encode, lambda z: (z @ pca.components + pca.mean).reshape(-1, 1, 28, 28)
    with torch.no_grad():
        assert float(recipe.decode(recipe.encode(mnist.val.batch(slice(0, 100))[0])).min()) < -0.1
    assert faults(recipe, mnist) == []


# metrics


def test_a_discriminator_that_is_never_deceived(digits):
    generator = Generator(digits.val.images.float() / 255)
    assert faults(generator, digits, {"d_real": 0.6, "d_fake": 0.4}) == []
    (line,) = faults(generator, digits, {"d_real": 0.99, "d_fake": 0.01})
    assert line.startswith("D is saturated: D(x) = 0.99, D(G(z)) = 0.01, so G learns little; try ")
    (line,) = faults(Generator(digits.val.images[:1].float() / 255), digits, {"d_real": 0.99, "d_fake": 0.01})
    assert line.startswith("mode collapse"), "a generator that has collapsed is what D sees through"


@pytest.mark.parametrize(
    ("best", "last", "risen"),
    [(1.0, 1.01, False), (1.0, 1.1, True), (-100.0, -99.0, False), (-100.0, -90.0, True), (math.inf, math.inf, False)],
)
def test_a_validation_that_rises(best, last, risen, digits):
    found = [line for line in faults(build("stacked", latent_dim=3), digits, {}, (best, last)) if "overfitting" in line]
    assert bool(found) == risen


def test_a_classifier_that_guesses(digits):
    recipe = build("pretrained", latent_dim=5)
    assert faults(recipe, digits, {"error": 20.0}) == []
    (line,) = faults(recipe, digits, {"error": 88.0})
    assert line.startswith("no better than guessing: 88 % of the validation images are misclassified; try ")


def test_few_steps_prove_nothing(digits):
    for recipe in (
        Generator(digits.val.images.float() / 255),
        Generator(digits.val.images[:1].float() / 255),
        encoder(0),
    ):
        (line,) = faults(recipe, digits, {"error": 88.0}, (1.0, 2.0), 40)
        assert line == "hardly trained: after 40 steps nothing is proven, good or bad; train longer"
    assert "after 1 step nothing" in faults(encoder(6), digits, steps=1)[0]


def test_a_test_says_what_is_worse_than_pca():
    assert diagnose_test({"test/mse": 0.054, "test/pca_mse": 0.053}) == []
    for other in ("test/denoised_mse", "test/pseudo_nll"):
        assert diagnose_test({"test/mse": 0.11, "test/pca_mse": 0.053, other: 1.0}) == [], "trained for something else"
    assert diagnose_test({"test/mse": 0.11}) == [], "a code as long as an image has no PCA beside it"
    (line,) = diagnose_test({"test/mse": 0.1105, "test/pca_mse": 0.0530})
    assert line.startswith("worse than PCA: mse 0.1105 against 0.053; try ")


def test_a_test_says_which_classes_its_classifier_misses():
    metrics = {"test/classes": 7.0, "test/real_classes": 10.0, "test/classifier_error": 2.0}
    assert diagnose_test(metrics)[0].startswith("mode collapse: the classifier sees 7 of 10 classes among the samples;")
    assert diagnose_test({**metrics, "test/classes": 10.0}) == []
    assert diagnose_test({**metrics, "test/sharpness": 0.1})[0].startswith(
        "under-trained: samples are blurred, and the class"
    )
    assert diagnose_test({**metrics, "test/sharpness": 0.9, "test/kl": 14.0})[0].startswith("mode collapse")
    assert diagnose_test({**metrics, "test/kl": 0.1}) == [], "the posterior has collapsed"
    assert diagnose_test({**metrics, "test/classifier_error": 40.0}) == [], (
        "a classifier that is often wrong does not tell"
    )
    assert diagnose_test({}) == []
    for said in ("mode collapse: samples", "hardly trained: after 40 steps", "posterior collapse: the decoder"):
        assert diagnose_test(metrics, said) == [], "one cause gives one diagnosis"


@pytest.mark.parametrize(
    ("said", "lines"),
    [("hardly trained: after 40", 0), ("under-trained: samples", 0), ("mode collapse: all", 1), ("", 1)],
)
def test_a_test_repeats_no_cause_that_the_training_named(said, lines):
    assert len(diagnose_test({"test/mse": 0.1105, "test/pca_mse": 0.0530}, said)) == lines


# runs


def test_the_diagnosis_of_a_run_is_its_faults_alone():
    assert Diagnosis([], ["12 of 20"]).text == "good"
    assert Diagnosis(["one", "two"], ["12 of 20"]).text == "one; two"


def test_a_finished_run_says_how_it_is(cli):
    from aelab.tracking import Store

    answer = cli("train", "linear", "--data", "digits", "--max-steps", 40, "--name", "short", "-q")
    tag = Store().find("short").tags["aelab.diagnostics"]
    assert tag.startswith("hardly trained: after 40 steps nothing is proven") and f"warning: {tag}" in answer.err
    assert f"Diagnostics: {tag}." in Store().find("short").tags["mlflow.note.content"]


def test_a_run_with_spare_dimensions_is_good_and_says_so(cli, monkeypatch):
    from aelab.tracking import Store

    monkeypatch.setattr(
        "aelab.workflows.following.diagnose", lambda *_: Diagnosis([], ["12 of 20 dimensions are used"])
    )
    answer = cli("train", "linear", "--data", "digits", "--max-steps", 2, "--name", "fine")
    info = Store().find("fine")
    assert info.tags["aelab.diagnostics"] == "good" and "12 of 20" in answer.err and "warning: 12" not in answer.err
    assert "Diagnostics: good.\nNote: 12 of 20 dimensions are used." in info.tags["mlflow.note.content"]


def test_a_run_that_is_not_finite_says_so(cli, here):
    from aelab.tracking import Store

    recipe_file = here / "boom.py"
    recipe_file.write_text(
        '"""x = y (2000)."""\nimport torch\nfrom aelab.recipe import Recipe\n'
        "class Boom(Recipe):\n"
        "    def __init__(self, image, *, lr: float = 1.0) -> None:\n"
        "        super().__init__()\n        self.lr = lr\n        self.w = torch.nn.Parameter(torch.ones(1))\n"
        "    def loss(self, x, y):\n        return (self.w * torch.inf).sum(), {}\n"
    )
    assert cli("train", "./boom.py", "--data", "digits", "--epochs", 1, "--name", "boom", "-q").code == 1
    info = Store().find("boom")
    assert info.status == "FAILED" and info.tags["aelab.diagnostics"].startswith("not finite: loss")


@pytest.mark.slow
def test_trained_models_are_told_apart(cli):
    """A beta of 20 makes the posterior of a real training collapse, a beta of 1 leaves spare dimensions."""
    from aelab.tracking import Store

    words = ("train", "vae", "--data", "digits", "--net", "mlp", "-q")
    for name, beta in (("normal", 1), ("collapsed", 20)):
        assert cli(*words, "--beta", beta, "--name", name).code == 0
    assert Store().find("normal").tags["aelab.diagnostics"] == "good"
    said = Store().find("collapsed").tags["aelab.diagnostics"]
    assert said.startswith("posterior collapse: ") and ";" not in said.removesuffix(
        "; try more --epochs or less weight on the KL term (--beta is 20)"
    )
