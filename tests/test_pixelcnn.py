"""PixelCNN: a distribution of images that sums to one, and a sampler that draws from it."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from aelab import recipe_files
from aelab.errors import UserError
from aelab.recipe import Completes, Conditional, ExactLikelihood, Generates

CLASSES = 3


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def build(image, classes=CLASSES, **options):
    """A small net whose weights are large enough that each window matters."""
    options = {"width": 8, "depth": 2, **options}
    recipe = recipe_files.build(recipe_files.find("pixelcnn"), image, options, classes).eval()
    for p in recipe.parameters():
        p.data = 2 * p.data if p.abs().sum() else torch.randn_like(p)
    return recipe.requires_grad_(False)


def all_images(image, values=2):
    grid = itertools.product(range(values), repeat=math.prod(image))
    return torch.tensor(list(grid)).view(-1, *image).to(torch.get_default_dtype()) / (values - 1)


def outputs(recipe, x, y):
    """The outputs at all positions, as training computes them."""
    x = F.pixel_unshuffle(x, recipe.block)
    return recipe.net(x, recipe.one_hot(y), recipe.position, type(recipe.first).forward)


@pytest.mark.parametrize(
    ("image", "options"),
    [
        ((1, 3, 3), {"block": 1}),
        ((1, 4, 4), {"block": 2}),
        ((1, 3, 3), {"block": 1, "conditional": True}),
        ((1, 4, 2), {"block": 2, "conditional": True}),
        ((2, 2, 3), {}),
    ],
)
def test_the_probabilities_of_all_binary_images_sum_to_one(image, options):
    recipe = build(image, **options)
    x = all_images(image)
    log_p = recipe.log_prob(x)
    assert log_p.exp().sum().item() == pytest.approx(1, abs=1e-9)
    assert log_p.std() > 0.5, "and they differ"
    if recipe.conditional:
        each = [recipe.log_likelihood(x, torch.full((len(x),), k)) for k in range(CLASSES)]
        assert [p.exp().sum().item() for p in each] == pytest.approx([1] * CLASSES, abs=1e-9)
        assert torch.allclose(log_p.exp(), sum(p.exp() for p in each) / CLASSES)
        assert not torch.allclose(each[0], each[1], atol=0.1)


@pytest.mark.parametrize("image", [(1, 1, 1), (2, 1, 1)])
def test_the_probabilities_of_all_levels_sum_to_one(image):
    recipe = build(image, likelihood="logistic")
    p = recipe.log_prob(all_images(image, 256)).exp()
    assert p.sum().item() == pytest.approx(1, abs=1e-9)
    assert p.min() >= 0
    if image[0] == 2:  # the second channel depends on the first
        given = p.view(256, 256) / p.view(256, 256).sum(1, keepdim=True)
        assert (given[0] - given[255]).abs().max() > 1e-4


def test_the_mass_of_a_level_is_that_of_its_interval():
    log_mass = recipe_files.load(recipe_files.find("pixelcnn")).__init__.__globals__["log_mass"]
    x, mu, log_s = torch.arange(256) / 255, torch.tensor(0.3), torch.tensor(-2.5)
    edges = torch.cat([torch.tensor([-math.inf]), (torch.arange(1, 256) - 0.5) / 255, torch.tensor([math.inf])])
    below = torch.sigmoid((edges - mu) / log_s.exp())
    assert torch.allclose(log_mass(x, mu, log_s).exp(), below[1:] - below[:-1])
    far = log_mass(torch.tensor(1.0), torch.tensor(-50.0), torch.tensor(-6.0))
    assert torch.isfinite(far), "where both distributions are 1 as floats"


@pytest.mark.parametrize("options", [{"block": 1}, {"block": 2}, {"likelihood": "logistic"}])
def test_no_position_sees_itself_or_a_later_one(options):
    recipe = build((1, 12, 12), depth=3, **options)
    x = torch.rand(1, 1, 12, 12, requires_grad=True)
    out = outputs(recipe, x, torch.zeros(1, dtype=torch.long))
    height, width = out.shape[2:]
    for i, j in [(0, 0), (0, width - 1), (2, 3), (height - 1, 0), (height - 1, width - 1)]:
        (gradient,) = torch.autograd.grad(out[0, :, i, j].square().sum(), x, retain_graph=True)
        seen = F.max_pool2d(gradient[0].abs(), recipe.block).flatten() > 0
        assert not seen[i * width + j :].any()
        if j:
            assert seen[i * width + j - 1], "the one before it counts"
        if i:
            assert seen[(i - 1) * width + j], "and the one above it"


@pytest.mark.parametrize(
    ("image", "options"),
    [
        ((1, 6, 8), {"block": 1}),
        ((1, 8, 6), {"block": 2}),
        ((1, 8, 6), {"block": 2, "conditional": True}),
        ((3, 4, 5), {}),
        ((3, 4, 5), {"likelihood": "logistic"}),
        ((1, 5, 4), {"likelihood": "logistic", "conditional": True}),
    ],
)
def test_the_sampler_draws_what_a_forward_pass_for_each_position_draws(image, options):
    recipe = build(image, **options)
    y = torch.arange(6) % CLASSES
    z = recipe.sample_class(y)
    x = torch.zeros(6, *image)
    b, (height, width) = recipe.block, recipe.grid
    u = z[:, : z.shape[1] - recipe.classes].view(6, height, width, -1)
    for i, j in itertools.product(range(height), range(width)):
        drawn = F.pixel_unshuffle(x, b)
        drawn[:, :, i, j] = recipe.pixels.draw(outputs(recipe, x, y)[:, :, i, j], u[:, i, j])
        x = F.pixel_shuffle(drawn, b)
    assert torch.equal(recipe.decode(z), x)
    assert len(torch.unique(x, dim=0)) == 6
    kept = height // 2 * b
    other = recipe.complete(x, kept, recipe.sample_class(y))
    assert torch.equal(other[:, :, :kept], x[:, :, :kept])
    assert not torch.equal(other, x)
    assert torch.equal(recipe.complete(x, kept, z), x), "the same numbers draw the same rest"


@pytest.mark.parametrize(
    ("image", "values", "options"),
    [((1, 2, 2), 2, {}), ((1, 1, 2), 2, {}), ((1, 1, 1), 256, {"likelihood": "logistic"})],
)
def test_samples_are_as_frequent_as_they_are_probable(image, values, options):
    recipe = build(image, **options)
    n = 20_000
    p = recipe.log_prob(all_images(image, values)).exp()
    drawn = (recipe.decode(recipe.sample_prior(n)).flatten(1) * (values - 1)).round().long()
    place = (drawn * values ** torch.arange(drawn.shape[1]).flip(0)).sum(1)
    counts = torch.bincount(place, minlength=len(p))
    error = (counts / n - p).abs() / (p * (1 - p) / n + 1 / n**2).sqrt()
    assert error.max() < 4.5, "standard errors"


def test_the_ends_of_the_uniform_numbers_give_the_first_and_the_last_value():
    recipe = build((1, 2, 2))
    bits = recipe.pixels
    out = torch.randn(2, 16)
    nearly_one = 1 - torch.finfo(torch.float64).eps
    assert bits.draw(out, torch.tensor([[0.0], [nearly_one]])).tolist() == [[0.0] * 4, [1.0] * 4]
    out[:, 0], out[:, 15] = -math.inf, -math.inf
    assert bits.draw(out, torch.tensor([[0.0], [nearly_one]])).sum(1).tolist() == [1, 3], "1 and 14"


def test_binary_pixels_are_drawn_anew_and_levels_are_kept():
    grey = torch.full((200, 1, 4, 4), 0.25)
    binary, levels = build((1, 4, 4)), build((1, 4, 4), likelihood="logistic")
    assert isinstance(binary, ExactLikelihood) and binary.binary and not levels.binary
    assert binary.observe(grey).unique().tolist() == [0, 1]
    assert binary.observe(grey).mean().item() == pytest.approx(0.25, abs=0.03)
    assert torch.equal(levels.observe(grey), torch.full_like(grey, 64 / 255))
    x = torch.arange(256).view(1, 1, 16, 16) / 255
    assert torch.equal(levels.observe(x), x)


def test_the_loss_is_minus_the_mean_log_probability():
    x, y = torch.rand(4, 1, 4, 4).round(), torch.tensor([0, 1, 2, 1])
    plain, conditional = build((1, 4, 4)), build((1, 4, 4), conditional=True)
    assert torch.allclose(plain.loss(x, y)[0], -plain.log_prob(x).mean())
    assert torch.allclose(conditional.loss(x, y)[0], -conditional.log_likelihood(x, y).mean())
    assert not torch.allclose(conditional.loss(x, y)[0], -conditional.log_prob(x).mean())


def test_a_class_is_drawn_uniformly_or_as_asked_for():
    recipe = build((1, 4, 4), conditional=True)
    assert isinstance(recipe, Conditional) and isinstance(recipe, Completes)
    y = torch.arange(9) % CLASSES
    assert torch.equal(recipe.sample_class(y)[:, -CLASSES:].argmax(1), y)
    share = recipe.sample_prior(3000)[:, -CLASSES:].mean(0)
    assert share.tolist() == pytest.approx([1 / CLASSES] * CLASSES, abs=0.04)
    plain = build((1, 4, 4))
    assert isinstance(plain, Generates) and not plain.conditional
    assert plain.sample_prior(5).shape == (5, 4), "one number for each block"


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        ((1, 5, 4), {"block": 2}, "--block 2 needs"),
        ((3, 4, 4), {"block": 2}, "--block 2 needs"),
        ((1, 4, 4), {"block": 2, "likelihood": "logistic"}, "--block 2 needs"),
    ],
)
def test_blocks_that_do_not_fit_are_refused(image, options, message):
    with pytest.raises(UserError, match=message):
        build(image, **options)


@pytest.mark.parametrize("classes", [0, 1])
def test_conditional_without_classes_is_refused(classes):
    recipe = recipe_files.load(recipe_files.find("pixelcnn"))
    with pytest.raises(ValueError, match="--conditional needs images of at least 2 classes"):
        recipe((1, 4, 4), classes, conditional=True)
    assert not recipe((1, 4, 4), classes).conditional


@pytest.mark.parametrize(
    ("image", "options", "side"),
    [((1, 4, 4), {}, 2), ((1, 5, 4), {}, 1), ((3, 4, 4), {}, 1), ((1, 4, 4), {"likelihood": "logistic"}, 1)],
)
def test_blocks_are_used_where_they_fit(image, options, side):
    assert build(image, **options).block == side
