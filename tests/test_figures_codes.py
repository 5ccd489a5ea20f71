"""Figures of codes: latent space, manifold, traversals, interpolation, arithmetic, ELBO, KL, classes of samples."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import Circle

from aelab import figures
from aelab.errors import UserError
from aelab.evaluation import active_units
from aelab.figures.bounds import Terms, draw_elbo, draw_kl, terms_of
from aelab.figures.codes import Panel, draw_latent_space, embedded, kl_by_dimension, principal
from aelab.figures.decoding import SIDE, grid_of_codes, quantiles
from aelab.figures.grids import PATHS
from aelab.figures.modes import draw_shares
from aelab.figures.strips import Strip, strips, verdict_texts
from aelab.figures.walks import EXAMPLES, STEPS, class_means, path_of
from aelab.recipe import Recipe

IMAGE = (1, 2, 3)
P = math.prod(IMAGE)
TERMS = dict.fromkeys(("train/nll", "train/kl", "val/nll", "val/kl"), 1.0)  # metrics of a run with an ELBO


class Pixels:
    """Test or training images (N, 1, 2, 3) and their labels, as a split of a data set gives them."""

    def __init__(self, n, classes):
        generator = torch.Generator().manual_seed(n)
        self.images = torch.randint(0, 256, (n, *IMAGE), generator=generator).float() / 255
        self.labels = torch.arange(n) % classes if classes else torch.full((n,), -1)

    def __len__(self):
        return len(self.images)

    def batch(self, index):
        return self.images[index], self.labels[index]

    def blocks(self, size):
        return [self.batch(slice(k, k + size)) for k in range(0, len(self), size)]

    def showcase(self, n):
        return self.images[:n]


class Linear(Recipe):
    """A code of D pixels, each times a factor; decoding puts them back. With a class behind it, the sum is shifted."""

    def __init__(self, scales=(1.0, 4.0)):
        super().__init__()
        self.scales = torch.nn.Parameter(torch.tensor(scales))

    def encode(self, x):
        return x.flatten(1)[:, : len(self.scales)] * self.scales

    def decode(self, z):
        d = len(self.scales)
        x = torch.full((len(z), P), 0.5)
        x[:, :d] = z[:, :d] / self.scales
        return x.view(-1, *IMAGE)


class Posterior(Linear):
    """Its mean is the code; the standard deviation is that of the dimension's number."""

    def posterior(self, x):
        mu = self.encode(x)
        return mu, torch.zeros_like(mu) + torch.arange(mu.shape[1])


class Prior(Linear):
    """No encoder, but a prior."""

    encode = None

    def sample_prior(self, n):
        return torch.rand(n, len(self.scales))


class Trained:
    """A run of a recipe above. The classifier sees class 0 where the first pixel is below 1/2, else class 1."""

    conditional = False
    image = IMAGE

    def __init__(self, recipe, classes=2, name="a-run", **metrics):
        self.recipe, self.classes, self.name = recipe, classes, name
        params = {"latent_dim": str(len(recipe.scales))}
        self.info = SimpleNamespace(recipe="toy", params=params, metrics=metrics, validation={}, tags={})
        self.config = SimpleNamespace(data="pixels")
        names = tuple(f"class {k}" for k in range(classes))
        self._data = SimpleNamespace(train=Pixels(40, classes), test=Pixels(30, classes), classes=names, image=IMAGE)
        self.asked = 0

    def data(self):
        return self._data

    def encode(self, x):
        with torch.no_grad():
            return self.recipe.encode(x)

    def decode(self, z):
        with torch.no_grad():
            return self.recipe.decode(z)

    def reconstruct(self, x):
        return self.decode(self.encode(x))

    def sample(self, n):
        return torch.linspace(0, 1, n).view(-1, 1, 1, 1).expand(-1, *IMAGE)

    def verdicts(self, images):
        self.asked += 1
        p = images.flatten(1)[:, :1]
        return torch.cat([1 - p, p, *[0 * p] * (self.classes - 2)], 1)

    def curve(self, metric):
        return pd.Series(
            {"train/nll": [9.0, 8.0, 7.0], "val/nll": [8.0, 5.0, 6.0]}.get(metric, [1.0, 2.0, 3.0]), [1, 2, 3]
        )


def shown(figure):
    """The images of a figure of strips, (N, H, W), row by row."""
    return torch.stack([torch.as_tensor(np.asarray(image.get_array()))[..., 0] for image in figure.axes[0].images])


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


# strips


def test_a_strip_shows_each_image_in_its_place_above_its_text():
    images = torch.rand(2, 3, *IMAGE)
    rows = [Strip("a", images[0], ["1", "2", "3"]), Strip("b", images[1])]
    figure = strips(rows, "title\nof two lines", ["x", "y", "z"], {2: "→"})
    torch.testing.assert_close(shown(figure), images.flatten(0, 1)[:, 0])
    assert texts(figure) == ["title\nof two lines", "x", "y", "z", "a", "1", "2", "3", "→", "b", "→"]
    extents = [image.get_extent() for image in figure.axes[0].images]
    left, right = ([extent[k] for extent in extents] for k in (0, 1))
    assert left[:3] == left[3:] == sorted(left[:3]) and left[2] - right[1] > left[1] - right[0] > 0
    assert right[2] < 10 and extents[0][2] < extents[3][3], "rows do not overlap"
    assert figure.get_figwidth() * figure.dpi >= 1600
    assert all(image.get_interpolation() == "nearest" for image in figure.axes[0].images)


@pytest.mark.parametrize("columns", [1, 5, 13])
def test_no_text_of_a_strip_is_cut_or_hides_another(columns):
    row = Strip("first\nKL 12.34 nats", torch.rand(columns, *IMAGE), ["airplane\n100 %"] * columns)
    figure = strips([row, row], "a title\nand its second line", ["test image"] * columns)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    pictures = [image.get_window_extent() for image in figure.axes[0].images]
    for k, box in enumerate(boxes):
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
        assert not any(box.overlaps(other) for other in [*boxes[:k], *pictures])


def test_a_name_from_outside_is_drawn_safely():
    figure = strips([Strip("\x1b[31m", torch.rand(1, *IMAGE))], "title")
    assert texts(figure)[1] == "\\x1b[31m"


def test_a_verdict_is_the_most_probable_class_and_its_probability():
    seen = torch.tensor([[0.96, 0.04], [0.3, 0.7]])
    assert verdict_texts(seen, ("0", "1")) == ["0: 96 %", "1: 70 %"]
    assert verdict_texts(seen, ("cat", "hippopotamus")) == ["cat\n96 %", "hippopotam\n70 %"]


# the latent space


def test_codes_of_two_dimensions_are_drawn_as_they_are_by_class():
    plain, with_prior = Trained(Linear(), name="ae"), Trained(Posterior(), name="vae")
    figure = figures.latent_space(plain, with_prior)
    x, y = plain.data().test.batch(slice(None))
    for axes in figure.axes:
        for label, dots in enumerate(axes.collections):
            np.testing.assert_allclose(dots.get_offsets(), plain.encode(x)[y == label], rtol=1e-6)
        assert axes.get_aspect() == 1
    first, second = figure.axes
    assert "ae, code of 2" in first.get_title() and "vae" in second.get_title()
    circles = [patch for patch in second.patches if isinstance(patch, Circle)]
    assert [(circle.center, circle.radius) for circle in circles] == [((0, 0), 1), ((0, 0), 2), ((0, 0), 3)]
    assert not first.patches, "no prior, no circles"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.texts] == ["class 0", "class 1", "prior: 1, 2, 3 σ"]
    colours = [dots.get_facecolor()[0, :3].tolist() for dots in first.collections]
    assert [list(rgb(mark)) for mark in legend.legend_handles[:2]] == colours


def rgb(mark):
    from matplotlib.colors import to_rgb

    return to_rgb(mark.get_color())


def test_codes_of_more_dimensions_have_a_panel_of_pca_and_one_of_t_sne():
    run = Trained(Posterior((1.0, 4.0, 2.0)))
    by_pca, by_sne = figures.latent_space(run).axes
    z = run.encode(run.data().test.images).double()
    variances = torch.linalg.svdvals(z - z.mean(0)).square()
    assert f"PCA, {100 * variances[:2].sum() / variances.sum():.0f} % of the variance" in by_pca.get_title()
    assert "t-SNE" in by_sne.get_title()
    assert len(by_pca.patches) == 3 and not by_sne.patches
    assert not len(by_sne.get_xticks()), "distances on this map mean nothing"


def test_the_plane_of_pca_keeps_the_origin_and_is_orthonormal():
    z = np.random.default_rng(0).normal(3, [5, 2, 1, 0.1], (200, 4))
    points, share = principal(z)
    assert share > 0.9
    zero = principal(np.vstack([z, np.zeros((1, 4))]))[0][-1]
    np.testing.assert_allclose(zero, 0, atol=1e-12)
    directions = np.linalg.svd(z - z.mean(0))[2][:2]
    np.testing.assert_allclose(np.abs(points), np.abs(z @ directions.T), atol=1e-9)


def test_t_sne_is_the_same_each_time_and_keeps_neighbours():
    z = np.concatenate([np.random.default_rng(k).normal(10 * k, 1, (20, 5)) for k in range(3)])
    points = embedded(z)
    np.testing.assert_array_equal(points, embedded(z))
    middles = np.stack([points[20 * k : 20 * k + 20].mean(0) for k in range(3)])
    nearest = np.linalg.norm(points[:, None] - middles, axis=2).argmin(1)
    assert (nearest == np.repeat(np.arange(3), 20)).all()


def test_many_classes_can_be_told_apart():
    names = [f"a long class {k}" for k in range(100)]
    points = np.random.default_rng(0).normal(size=(300, 2))
    figure = draw_latent_space([Panel("one", points, np.arange(300) % 100)], names, "title")
    looks = {(d.get_facecolor().tobytes(), d.get_paths()[0].vertices.tobytes()) for d in figure.axes[0].collections}
    assert len(looks) == 100
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width and not box.overlaps(figure.axes[0].get_window_extent())


def test_data_without_classes_have_one_colour_and_no_legend():
    figure = figures.latent_space(Trained(Linear(), classes=0))
    (dots,) = figure.axes[0].collections
    assert len(dots.get_offsets()) == 30 and not figure.legends[0].texts


def test_a_class_is_named_where_its_points_are():
    cluster = np.random.default_rng(0).normal(0, 0.1, (70, 2))
    points = np.concatenate([cluster[:40], cluster[40:] + 9])  # the median of all is near neither
    figure = draw_latent_space([Panel("one", points, np.zeros(70, int))], ["cat"], "title")
    (text,) = figure.axes[0].texts
    assert text.get_text() == "cat" and np.linalg.norm(text.get_position()) < 1


# the manifold


def test_the_manifold_has_the_decoded_zero_in_the_middle_and_equal_shares_of_the_prior():
    run = Trained(Posterior())
    figure = figures.manifold(run)
    (axes,) = figure.axes
    sheet = torch.as_tensor(np.asarray(axes.images[0].get_array()))[..., 0]  # (n H, n W)
    tiles = sheet.view(SIDE, 2, SIDE, 3).permute(0, 2, 1, 3)  # (row, column, H, W)
    middle = SIDE // 2
    torch.testing.assert_close(tiles[middle, middle], run.decode(torch.zeros(1, 2))[0, 0].clamp(0, 1))
    z = quantiles(SIDE)
    corner = run.decode(torch.stack([z[-1], z[-1]])[None])[0, 0].clamp(0, 1)
    torch.testing.assert_close(tiles[0, -1], corner)  # z₂ grows upwards
    left = run.decode(torch.stack([z[3], z[5]])[None])[0, 0].clamp(0, 1)
    torch.testing.assert_close(tiles[SIDE - 1 - 5, 3], left)
    cdf = torch.special.ndtr(z)
    torch.testing.assert_close(cdf.diff(), torch.full((SIDE - 1,), 1 / SIDE))
    assert z[middle] == 0
    ticks = {label.get_text(): place for place, label in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert ticks["0.0"] == 3 * middle + 1, "below the middle column"


def test_codes_of_the_grid_are_in_reading_order():
    assert grid_of_codes(torch.tensor([-1.0, 1.0])).tolist() == [[-1, 1], [1, 1], [-1, -1], [1, -1]]


def test_the_manifold_needs_two_dimensions_and_a_posterior():
    with pytest.raises(UserError, match="has 3 dimensions, not 2"):
        figures.manifold(Trained(Posterior((1.0, 1.0, 1.0))))
    with pytest.raises(UserError, match="no posterior"):
        figures.manifold(Trained(Linear()))


# traversals


def test_traversals_change_one_dimension_the_most_active_first():
    run = Trained(Posterior((0.1, 2.0)))
    figure = figures.traversals(run)
    kl = kl_by_dimension(run.recipe, run.data().test)
    first, second = kl.argsort(descending=True).tolist()
    images = shown(figure).view(2, 11, 2, 3)
    for row, d in enumerate((first, second)):
        z = torch.zeros(11, 2)
        z[:, d] = torch.linspace(-3, 3, 11)
        torch.testing.assert_close(images[row], run.decode(z)[:, 0].clamp(0, 1))
    labels = [text for text in texts(figure) if text.startswith("z") and "KL" in text]
    assert labels == [f"z{'₁₂'[d]}\nKL {kl[d]:.2f} nats" for d in (first, second)]


def test_traversals_keep_the_rest_of_the_code_of_a_test_image():
    run = Trained(Posterior())
    z = run.encode(run.data().test.images[7:8])
    images = shown(figures.traversals(run, image=7)).view(2, 11, 2, 3)
    d = int(kl_by_dimension(run.recipe, run.data().test).argmax())
    kept = 1 - d
    pixel = run.decode(z)[0].flatten()[kept].clamp(0, 1)
    assert torch.allclose(images[0].flatten(1)[:, kept], pixel)


def test_a_code_without_a_prior_is_changed_by_its_standard_deviation():
    run = Trained(Linear())
    codes = run.encode(run.data().test.images)
    images = shown(figures.traversals(run)).view(2, 11, 2, 3)
    d = int(codes.var(0).argmax())
    z = codes.mean(0).repeat(11, 1)
    z[:, d] += torch.linspace(-3, 3, 11) * codes[:, d].std()
    torch.testing.assert_close(images[0], run.decode(z)[:, 0].clamp(0, 1))


def test_at_most_ten_dimensions_are_shown():
    class Wide(Posterior):
        def decode(self, z):
            return torch.zeros(len(z), *IMAGE)

        def encode(self, x):
            return x.flatten(1)[:, :1] * self.scales

    assert len(shown(figures.traversals(Trained(Wide((1.0,) * 12))))) == 10 * 11


# interpolation


def test_the_ends_of_a_strip_are_reconstructions_and_the_test_images_stand_outside():
    run = Trained(Posterior())
    figure = figures.interpolation(run)
    x = run.data().test.images[:8]
    images = shown(figure).view(4, 2, STEPS + 2, 2, 3)  # pairs, kinds, columns, H, W
    for k in range(4):
        for kind in range(2):
            row = images[k, kind]
            torch.testing.assert_close(row[0], x[2 * k, 0])
            torch.testing.assert_close(row[-1], x[2 * k + 1, 0])
            torch.testing.assert_close(row[1], run.reconstruct(x[2 * k : 2 * k + 1])[0, 0])
            torch.testing.assert_close(row[-2], run.reconstruct(x[2 * k + 1 : 2 * k + 2])[0, 0])
    middle = run.decode(run.encode(x).view(4, 2, 2).mean(1))[:, 0]
    torch.testing.assert_close(images[:, 0, STEPS // 2 + 1], middle)
    assert not torch.equal(images[:, 0, STEPS // 2 + 1], images[:, 1, STEPS // 2 + 1])
    written = texts(figure)
    seen = run.verdicts(images.flatten(0, 2)[:, None])
    assert [text for text in written if text.endswith(" %") and text.startswith("class")] == verdict_texts(
        seen, run.data().classes
    )
    assert run.asked == 2, "the classifier is opened once, and once here"
    inner = seen.view(4, 2, STEPS + 2, 2)[:, :, 2:-2].amax(3).mean((0, 2))
    assert f"linear {100 * inner[0]:.0f} %, spherical {100 * inner[1]:.0f} %" in written[0]


def test_the_images_of_an_interpolation_can_be_chosen():
    run = Trained(Linear())
    images = shown(figures.interpolation(run, images=[(5, 3)])).view(2, STEPS + 2, 2, 3)
    torch.testing.assert_close(images[:, 0], run.data().test.images[5].expand(2, -1, -1))
    torch.testing.assert_close(images[:, -1], run.data().test.images[3].expand(2, -1, -1))


def test_without_an_encoder_the_ends_are_draws_of_the_prior_always_the_same():
    run = Trained(Prior(), classes=0)
    figure = figures.interpolation(run)
    assert shown(figure).shape[0] == 4 * 2 * STEPS
    assert torch.equal(shown(figure), shown(figures.interpolation(run)))
    assert "draws of the prior" in texts(figure)[0] and run.asked == 0
    assert not any("%" in text for text in texts(figure)), "no classes, no verdicts"


def test_the_class_of_a_conditional_code_goes_along_a_line():
    run = Trained(Linear())
    run.conditional = True
    a, b = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    t = torch.linspace(0, 1, 5)
    z = path_of(run, a, b, t, "spherical")
    torch.testing.assert_close(z[:, 2:], torch.stack([1 - t, t], 1))
    torch.testing.assert_close(z[:, :2], PATHS["spherical"](a[:2], b[:2], t))


def test_what_does_not_interpolate_says_so():
    class Steps(Prior):
        interpolates = False

    class Neither(Linear):
        encode = None

    with pytest.raises(UserError, match="mean nothing"):
        figures.interpolation(Trained(Steps()))
    with pytest.raises(UserError, match="neither encoder nor prior"):
        figures.interpolation(Trained(Neither()))
    assert "interpolation" not in figures.available(Trained(Steps()))
    assert "interpolation" in figures.available(Trained(Prior()))


# arithmetic


def test_arithmetic_adds_the_difference_of_two_mean_codes():
    run = Trained(Linear())
    figure = figures.class_arithmetic(run)
    train, test = run.data().train, run.data().test
    means = [run.encode(train.images[train.labels == k]).mean(0) for k in (0, 1)]
    images = shown(figure)  # one row: 1 - 0, added to 0
    assert len(images) == 2 + 2 * EXAMPLES
    torch.testing.assert_close(images[0], run.decode(means[1][None])[0, 0])
    torch.testing.assert_close(images[1], run.decode(means[0][None])[0, 0])
    zeros = test.images[test.labels == 0]
    moved = run.decode(run.encode(zeros) + means[1] - means[0])
    torch.testing.assert_close(images[2::2], zeros[:EXAMPLES, 0])
    torch.testing.assert_close(images[3::2], moved[:EXAMPLES, 0].clamp(0, 1))
    share = float((moved[:, 0, 0, 0] > 0.5).float().mean())
    assert f"sees A in {100 * share:.0f} % of {len(zeros)} results" in texts(figure)[0]


def test_arithmetic_shows_as_many_examples_as_there_are():
    run = Trained(Linear(), classes=4)
    labels = run.data().test.labels
    labels[labels == 0] = 1
    labels[torch.nonzero(labels == 2).flatten()[2:]] = 3
    images = shown(figures.class_arithmetic(run))  # one row: 3 - 2, added to the two images of 2 that are left
    torch.testing.assert_close(images[2::2], run.data().test.images[labels == 2][:, 0])
    labels[labels == 2] = 3
    with pytest.raises(UserError, match="no two classes"):
        figures.class_arithmetic(run)


def test_means_are_of_each_class():
    means = class_means(torch.tensor([[1.0], [3.0], [10.0]]), torch.tensor([0, 0, 1]), 2)
    assert means.tolist() == [[2], [10]]


@pytest.mark.parametrize("draw", [figures.class_arithmetic, figures.digit_histogram])
def test_without_classes_there_are_none_to_name(draw):
    class Both(Linear):
        def sample_prior(self, n):
            return torch.rand(n, 2)

    with pytest.raises(UserError, match="pixels has no classes"):
        draw(Trained(Both(), classes=0))


# the ELBO


def test_the_elbo_is_the_sum_of_its_terms():
    run = Trained(Posterior(), **TERMS)
    figure = figures.elbo(run, run)
    above, below = figure.axes[0], figure.axes[2]
    lines = [list(line.get_ydata()) for line in above.lines]
    assert lines == [[9, 7, 9], [10, 10, 10], [8, 5, 6], [9, 8, 7]]  # -ELBO and nll, validation and training
    assert [list(line.get_ydata()) for line in below.lines[:2]] == [[1, 2, 3]] * 2
    assert "least −ELBO 7.0 nats, epoch 2" in above.get_title()
    assert len(figure.axes) == 4
    assert figure.axes[2].get_ylim()[0] == 0 and figure.axes[3].get_ylim() == figure.axes[2].get_ylim()
    assert figure.axes[2].get_ylim()[1] > 3, "all of the KL is seen"
    legend = [text.get_text() for text in figure.legends[0].texts]
    assert legend[0] == "−ELBO" and legend[1].startswith("reconstruction") and legend[2].startswith("KL")


def test_the_elbo_of_a_conditional_run_has_the_class_too():
    run = Trained(Posterior())
    run.conditional = True
    assert terms_of(run).sums("val") == pytest.approx([9 + math.log(2), 7 + math.log(2), 9 + math.log(2)])


def test_the_elbo_of_one_epoch_is_seen():
    one = {"train": [3.0], "val": [2.0]}
    figure = draw_elbo([Terms("one", [1], one, one)], "title")
    assert figure.axes[0].lines[0].get_marker() == "o"


def test_a_run_without_these_terms_has_no_such_figure():
    with pytest.raises(UserError, match="no metric train/nll"):
        figures.elbo(Trained(Linear()))


def test_kl_of_each_dimension_and_the_active_ones():
    run = Trained(Posterior((0.01, 4.0, 1.0)))
    x = run.data().test.images
    mu, log_var = run.recipe.posterior(x)
    q, p = torch.distributions.Normal(mu, (log_var / 2).exp()), torch.distributions.Normal(0.0, 1.0)
    kl = torch.distributions.kl_divergence(q, p).mean(0).double()
    torch.testing.assert_close(kl_by_dimension(run.recipe, run.data().test), kl, rtol=1e-5, atol=1e-6)
    figure = figures.kl_per_dimension(run)
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(sorted(kl.tolist(), reverse=True), rel=1e-5)
    used = active_units(run.recipe, x)
    assert used == 2
    assert f"KL {kl.sum():.1f} nats in all, {used} of 3 dimensions active" in figure.axes[0].get_title()
    order = kl.argsort(descending=True).tolist()
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == [str(d + 1) for d in order]
    (crosses,) = figure.axes[0].lines
    assert list(crosses.get_xdata()) == [order.index(0)], "the first dimension varies too little"


def test_bars_that_are_not_active_have_another_colour():
    bars = draw_kl([0.5, 2.0, 0.0], [True, True, False], "title").axes[0].patches
    colours = [bar.get_facecolor() for bar in bars]
    assert colours[0] == colours[1] != colours[2]


def test_the_noise_of_a_figure_leaves_the_random_state_alone():
    class Noisy(Posterior):
        binary = True

        def observe(self, x):
            return torch.bernoulli(x)

        def log_weights(self, x, samples):
            raise NotImplementedError

    run = Trained(Noisy())
    run.recipe.train()
    before = torch.get_rng_state()
    first = kl_by_dimension(run.recipe, run.data().test)
    assert torch.equal(torch.get_rng_state(), before) and run.recipe.training
    torch.manual_seed(99)
    assert torch.equal(kl_by_dimension(run.recipe, run.data().test), first)


# classes of samples


def test_the_histogram_shows_the_share_of_each_class_among_samples():
    class Both(Linear):
        def sample_prior(self, n):
            return torch.rand(n, 2)

    run = Trained(Both(), classes=4)
    figure = figures.digit_histogram(run, n=100)
    (axes,) = figure.axes
    assert [bar.get_height() for bar in axes.patches] == pytest.approx([50, 50, 0, 0])
    assert "distance from equal shares 0.500" in axes.get_title() and "100 samples" in axes.get_title()
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["training images"] == [25] * 4 and lines["equal shares, 25 %"] == [25, 25]
    assert [label.get_text() for label in axes.get_xticklabels()] == [f"class {k}" for k in range(4)]


def test_the_error_bars_of_shares_are_binomial():
    figure = draw_shares([0.1, 0.9], [0.5, 0.5], 100, ["a", "b"], "title")
    segments = figure.axes[0].collections[0].get_segments()
    assert [float(s[1, 1] - s[0, 1]) / 2 for s in segments] == pytest.approx([3, 3])


def test_each_figure_is_in_the_list():
    names = ["latent-space", "manifold", "traversals", "class-arithmetic", "interpolation", "elbo", "kl-per-dimension"]
    assert set(names) <= set(figures.available(Trained(Posterior(), **TERMS)))
    assert all(figures.summary(name).endswith((".", ")")) for name in [*names, "digit-histogram"])
