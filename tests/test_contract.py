"""What every recipe keeps to, whatever it is. A new recipe is tested by being there."""

import ast
import copy
import inspect
import math
import re

import pytest
import torch

from aelab import recipe_files
from aelab.metrics import definition
from aelab.recipe import Autoencodes, Encodes, EnergyBased, Generates

RECIPES = list(recipe_files.available())
CLASSES = 3  # of the labels of `batch`
SHAPES = [(1, 28, 28), (3, 16, 16), (1, 8, 8)]


@pytest.fixture(params=RECIPES)
def recipe_file(request):
    return recipe_files.available()[request.param]


@pytest.fixture(params=SHAPES, ids=lambda shape: "x".join(map(str, shape)))
def image(request):
    return request.param


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def batch(image, n=5):
    return torch.rand(n, *image), torch.arange(n) % 3


def nll(recipe, x):
    """- log p(x) in nats, the mean over observed images x, of a recipe with an energy."""
    log_z = torch.logsumexp(recipe.log_partition(200, 50), 0) - math.log(50)
    return (recipe.free_energy(x).mean() + log_z).item()


def test_the_docstring_can_be_read_beside_the_slide(recipe_file):
    doc = ast.get_docstring(ast.parse(recipe_file.source))
    assert re.search(r"\b(19|20)\d\d\b", doc), "the docstring names its paper"
    assert "=" in doc or "log" in doc, "and gives its equation"
    assert max(map(len, doc.splitlines())) <= 78, "it is the text of --help"


def test_a_recipe_file_imports_torch_and_what_is_made_for_recipes(recipe_file):
    allowed = {
        "torch",
        "aelab.recipe",
        "aelab.networks",
        "annotated_types",
        "typing",
        "collections",
        "itertools",
        "math",
    }
    for node in ast.walk(ast.parse(recipe_file.source)):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert name in allowed or name.split(".")[0] in {"torch", "collections"}, name


def test_every_option_has_a_type_a_default_and_a_line_of_help(recipe_file):
    options = recipe_files.signature(recipe_file).options
    assert options
    for option in options:
        assert option.help
        value = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)
        assert option.parse(value) == option.default


def test_every_phase_takes_a_step_on_any_shape(recipe_file, image):
    recipe = recipe_files.build(recipe_file, image, {}, CLASSES)
    before = {name: p.detach().clone() for name, p in recipe.named_parameters() if p.requires_grad}
    x, y = batch(image)
    for phase in recipe.phases(1):
        metrics = phase.step(x, y, **phase.optimizers)
        assert all(value.ndim == 0 and torch.isfinite(value) for value in metrics.values())
    moved = [name for name, p in recipe.named_parameters() if p.requires_grad and not torch.equal(p, before[name])]
    assert len(moved) == len(before), "every parameter learns"


def test_a_step_is_the_same_with_unfused_optimizers(recipe_file, float64):
    """An optimizer that is not fused lets autograd see that weights have moved between a forward pass and its backward pass.

    In float64, as Adam makes a whole step of a gradient that is nothing but rounding.
    """
    weights = []
    for fused in (True, False):
        torch.manual_seed(2)
        recipe = recipe_files.build(recipe_file, (1, 8, 8), {}, CLASSES)
        x, y = batch((1, 8, 8), 6)
        for phase in recipe.phases(1):
            for optimizer in phase.optimizers.values():
                for group in optimizer.param_groups:
                    if "fused" in group:
                        group["fused"] = fused
            for _ in range(2):
                phase.step(x, y, **phase.optimizers)
        weights.append(recipe.state_dict())
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], rtol=1e-6, atol=1e-9), name


def test_the_loss_evaluates_without_gradients_or_side_effects(recipe_file, image):
    recipe = recipe_files.build(recipe_file, image, {}, CLASSES).eval()
    before = {name: value.clone() for name, value in recipe.state_dict().items()}
    values = []
    for _ in range(2):
        torch.manual_seed(1)
        with torch.no_grad():
            loss, parts = recipe.loss(*batch(image))
        values.append({"loss": loss, **parts})
    assert values[0].keys() == values[1].keys()
    assert all(torch.equal(a, b) for a, b in zip(values[0].values(), values[1].values(), strict=True))
    assert all(torch.equal(value, before[name]) for name, value in recipe.state_dict().items())
    assert recipe.monitor is None or recipe.monitor in values[0]


def test_every_metric_is_defined(recipe_file):
    recipe = recipe_files.build(recipe_file, (1, 8, 8), {}, CLASSES)
    x, y = batch((1, 8, 8))
    names = {"loss", *recipe.loss(x, y)[1]}
    for phase in recipe.phases(1):
        names |= set(phase.step(x, y, **phase.optimizers))
    assert [name for name in names if definition(name) is None] == []


def test_codes_and_images_have_their_shapes(recipe_file, image):
    sized = "latent_dim" in [option.name for option in recipe_files.signature(recipe_file).options]
    recipe = recipe_files.build(recipe_file, image, {"latent_dim": 4} if sized else {}, CLASSES).eval()
    x, _ = batch(image)
    if isinstance(recipe, Encodes):
        assert recipe.encode(x).shape == (5, 4)
        assert torch.equal(recipe.encode(x), recipe.encode(x)), "the mean, never a sample"
    if isinstance(recipe, Autoencodes):
        assert recipe.decode(recipe.encode(x)).shape == x.shape
    if isinstance(recipe, Generates):
        z = recipe.sample_prior(7)
        assert z.ndim == 2
        assert len(z) == 7
        assert z.shape[1] >= 4 or not sized, "with what is behind the dimensions of --latent-dim"
        made = recipe.decode(z)
        assert made.shape == (7, *image)
        assert made.min() >= 0 and made.max() <= 1
    assert isinstance(recipe, (Encodes, Generates))


def test_the_learning_rate_reaches_every_optimizer(recipe_file):
    rates = []
    for lr in (1e-3, 4e-3):
        phases = recipe_files.build(recipe_file, (1, 8, 8), {"lr": lr}, CLASSES).phases(1)
        rates.append([g["lr"] for phase in phases for o in phase.optimizers.values() for g in o.param_groups])
    assert rates[1] == pytest.approx([4 * rate for rate in rates[0]])


def test_training_lowers_the_loss(recipe_file):
    """Neither loss of a GAN has to fall; there the discriminator must tell real from generated images.

    The loss of an energy is about 0 throughout; there the images must become more likely.
    """
    recipe = recipe_files.build(recipe_file, (1, 8, 8), {}, CLASSES)
    x = (torch.rand(64, 1, 8, 8) > 0.5).float() * torch.linspace(0, 1, 8)
    y = torch.zeros(64, dtype=torch.long)
    phase = recipe.phases(1)[-1]
    before = copy.deepcopy(recipe)
    metrics = [phase.step(x, y, **phase.optimizers) for _ in range(60)]
    if "d_real" in metrics[0]:
        assert max(m["d_real"] - m["d_fake"] for m in metrics) > 0.05
    elif isinstance(recipe, EnergyBased):
        observed = recipe.observe(x)
        assert nll(recipe, observed) < 0.9 * nll(before, observed)
    else:
        assert metrics[-1]["loss"] < 0.9 * metrics[0]["loss"]


def test_the_constructor_takes_what_the_data_are_first(recipe_file):
    parameters = list(inspect.signature(recipe_files.load(recipe_file)).parameters.values())
    positional = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
    assert positional in (["image"], ["image", "classes"])
