"""The game of a GAN, points in the plane and the taxonomy: what their figures say and show."""

import math
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Circle
from matplotlib.quiver import Quiver

import aelab
from aelab import recipe_files
from aelab.data import Modes, modes_of, open_data
from aelab.data.points import RADIUS, SD
from aelab.errors import UserError
from aelab.evaluation.baselines import pixel_metrics
from aelab.figures import (
    animate_samples,
    game,
    grid,
    pairs,
    plane,
    plane_picture,
    points,
    samples_over_training,
    taxonomy,
    tiles,
    vector_field,
)
from aelab.figures.game import animation, equilibrium, game_figure, gradients_figure, pictures_figure, spaced
from aelab.figures.game import minimax_and_non_saturating as both_losses
from aelab.figures.grids import BLUE, PALE_BLUE, PALE_VERMILION, VERMILION
from aelab.figures.points import arrows, field_figure, points_figure
from aelab.figures.style import COLOURS
from aelab.figures.taxonomy import sheet, taxonomy_figure
from aelab.tracking.pictures import read_pictures
from aelab.workflows.following import pictures

COURSE = {
    "d_real": [(1, 0.9), (2, 0.6)], "d_fake": [(1, 0.1), (2, 0.4)], "d_loss": [(1, 0.3), (2, 1.2)],
    "g_loss": [(1, 3.0), (2, 0.9)], "d_grad_norm": [(1, 2.0), (2, 1.0)], "g_grad_norm": [(1, 4.0), (2, 0.3)],
}  # fmt: skip


class Draws:
    """Draws samples, and has no likelihood."""

    def decode(self, z): ...

    def sample_prior(self, n): ...


class Likelihood(Draws):
    binary = True


def run(
    recipe=None, image=(1, 1, 2), name_of_data="ring", *, of="gan", params=None, metrics=None, tags=None, **methods
):
    """A run as figures see it."""
    info = SimpleNamespace(recipe=of, params=params or {}, metrics=metrics or {}, tags=tags or {})
    config = SimpleNamespace(data=name_of_data)
    return SimpleNamespace(
        name=f"{of}-1", info=info, config=config, image=image, conditional=False, recipe=recipe or Draws(), **methods
    )


def words(figure):
    """All text of a figure."""
    texts = [figure.get_suptitle()]
    for axes in figure.axes:
        texts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
        if legend := axes.get_legend():
            texts += [text.get_text() for text in legend.get_texts()]
    return "\n".join(texts)


def levels(axes):
    """The heights of the horizontal lines of a panel."""
    return [line.get_ydata()[0] for line in axes.lines if list(line.get_xdata()) == [0, 1]]


# points as data


@pytest.mark.parametrize(("name", "count"), [("ring", 8), ("grid", 25)])
def test_points_lie_around_their_modes(name, count):
    data = open_data(name)
    modes = modes_of(data.train)
    assert data.of_points and data.image == (1, 1, 2) and len(data.classes) == len(modes.centres) == count
    assert modes.sd == pytest.approx(SD, rel=0.02)
    x, y = data.test.batch(slice(None))
    assert modes.metrics(x.flatten(1))["modes"] == count
    assert modes.metrics(x.flatten(1))["near_mode"] == pytest.approx(100 * (1 - math.exp(-4.5)), abs=1)
    inside = modes.of(x.flatten(1)) >= 0
    assert torch.equal(modes.of(x.flatten(1))[inside], y[inside])  # no two modes are near each other
    assert torch.equal(open_data(name).train.images, data.train.images)


def test_the_modes_of_the_ring_go_round_from_the_right():
    centres = modes_of(open_data("ring").train).centres - 0.5
    assert (centres.norm(dim=1) - RADIUS).abs().max() < 0.003
    assert (torch.atan2(centres[:, 1], centres[:, 0]).rad2deg() % 360 - torch.arange(8) * 45)[1:].abs().max() < 1


def test_the_modes_of_the_grid_go_row_by_row_from_below():
    centres = modes_of(open_data("grid").train).centres
    assert (centres[7] - torch.tensor([0.5, 0.3])).abs().max() < 0.003


def test_modes_are_counted_by_their_share():
    modes = Modes(torch.tensor([[0.2, 0.2], [0.8, 0.8]]), 0.01)
    drawn = torch.tensor([[0.2, 0.2]] * 989 + [[0.8, 0.829]] * 9 + [[0.5, 0.5]] * 2)
    assert modes.metrics(drawn) == {"modes": 1.0, "near_mode": pytest.approx(99.8)}
    drawn[-1] = torch.tensor([0.8, 0.8])
    assert modes.metrics(drawn) == {"modes": 2.0, "near_mode": pytest.approx(99.9)}
    drawn[-1] = torch.tensor([0.8, 0.831])  # beyond three standard deviations
    assert modes.metrics(drawn)["modes"] == 1


def test_samples_of_points_are_measured_by_modes_and_have_no_edges():
    data = open_data("ring")
    metrics = pixel_metrics(data.train.batch(slice(0, 500))[0], data)
    assert metrics["modes"] == 8 and metrics["near_mode"] > 97 and "sharpness" not in metrics
    everywhere = pixel_metrics(torch.full((500, 1, 1, 2), 0.5), data)
    assert everywhere["modes"] == everywhere["near_mode"] == 0


# pictures of points


def test_dots_are_where_the_points_are():
    sheet_ = plane_picture(torch.tensor([[1.0, 0.0]]), VERMILION, torch.tensor([[0.0, 1.0], [0.5, 0.5]]))
    assert tuple(sheet_[-1, -1]) == VERMILION and tuple(sheet_[0, 0]) == BLUE and tuple(sheet_[127, 128]) == BLUE
    assert tuple(sheet_[0, -1]) == tuple(sheet_[-1, 0]) == (255, 255, 255)


def test_the_ground_is_the_discriminator():
    d = torch.full((3, 3), 0.5)
    d[0, 0], d[0, 2], d[2, 0] = 0.0, 1.0, 0.625  # below left, below right, above left
    sheet_ = plane_picture(torch.zeros(0, 2), VERMILION, None, d)
    assert tuple(sheet_[-1, 0]) == PALE_VERMILION and tuple(sheet_[-1, -1]) == PALE_BLUE
    assert tuple(sheet_[128, 128]) == (255, 255, 255)
    assert sheet_[0, 0].tolist() == pytest.approx([255 + 0.5 * (end - 255) for end in PALE_BLUE], abs=1)


def test_grids_and_pairs_of_points_are_dots():
    x = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).reshape(2, 1, 1, 2)
    assert grid(x).shape == (256, 256, 3) and tuple(grid(x)[-1, 0]) == BLUE
    both = pairs(x, 1 - x.flip(3) / 2)
    assert tuple(both[0, -1]) == VERMILION and tuple(both[-1, 0]) == BLUE


@pytest.mark.parametrize("name", ["gan", "rbm", "convolutional"])
def test_a_training_on_points_draws_dots(name):
    data = open_data("ring")
    recipe = recipe_files.build(recipe_files.available()[name], data.image, {}, len(data.classes))
    found = dict(pictures(recipe, data))
    assert found and all(picture.shape == (256, 256, 3) for picture in found.values())
    if name == "gan":
        x = plane(64)
        recipe.noise = 0.0
        with torch.no_grad():
            logits = recipe.eval().discriminate(x, torch.zeros(len(x)).long())
        ground = dict(pictures(recipe, data))["samples"][0, 0].astype(int)
        blue = logits[64 * 63] > 0  # above left
        assert (ground[0] < ground[2]) == bool(blue)


# grids, read back


@pytest.mark.parametrize(
    ("shape", "count", "columns"), [((1, 28, 28), 64, 8), ((3, 9, 12), 10, 5), ((1, 40, 31), 7, 7)]
)
def test_tiles_are_the_inverse_of_a_grid(shape, count, columns):
    images = torch.randint(0, 256, (count, *shape)).float() / 255
    torch.testing.assert_close(tiles(grid(images, columns), shape), images, rtol=0, atol=1e-6)


def test_tiles_of_a_last_row_that_ends_early_are_grey():
    found = tiles(grid(torch.ones(5, 1, 28, 28), 3), (1, 28, 28))
    assert (found[:5] == 1).all() and (found[5:] == 128 / 255).all() and len(found) == 6


def test_another_picture_is_no_grid():
    with pytest.raises(UserError, match="no grid"):
        tiles(np.zeros((100, 100, 3), np.uint8), (1, 28, 28))


def test_pictures_are_read_back_by_step(tmp_path):
    for name, value in (
        ("pictures~samples+step+0+timestamp+5+ab.png", 10),
        ("pictures~samples+step+12+timestamp+6+ab.png", 20),
        ("pictures~samples%step%12%timestamp%7%ab.png", 30),
        ("pictures~samples+step+3+timestamp+6+ab+compressed.webp", 40),
        ("pictures~others+step+4+timestamp+6+ab.png", 50),
    ):
        PIL.Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(tmp_path / name)
    found = read_pictures(tmp_path, "pictures/samples")
    assert list(found) == [0, 12] and found[0].shape == (4, 5, 3)
    assert (found[0] == 10).all() and (found[12] == 30).all()  # the newer one
    assert read_pictures(tmp_path / "none", "pictures/samples") == {}


def test_a_damaged_or_huge_picture_is_refused(tmp_path, monkeypatch):
    (tmp_path / "k+step+0+timestamp+5+ab.png").write_bytes(b"not a picture")
    with pytest.raises(UserError, match="cannot be read"):
        read_pictures(tmp_path, "k")
    monkeypatch.setattr("aelab.tracking.pictures.MAX_PIXELS", 19)
    PIL.Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "k+step+0+timestamp+5+ab.png")
    with pytest.raises(UserError, match="more than 19 pixels"):
        read_pictures(tmp_path, "k")


# the game


def test_equilibrium_is_the_minimum_over_d():
    assert equilibrium(0, False) == (0.5, pytest.approx(2 * math.log(2)), pytest.approx(math.log(2)))
    assert equilibrium(0, True)[2] == pytest.approx(-math.log(2))
    d = torch.linspace(0.001, 0.999, 999, dtype=torch.float64)
    losses = -(0.9 * d.log() + 0.1 * (1 - d).log() + (1 - d).log())  # of equally many real and generated images
    assert equilibrium(0.1, False)[0] == pytest.approx(float(d[losses.argmin()]))
    assert equilibrium(0.1, False)[1] == pytest.approx(float(losses.min()), abs=1e-6)


def test_the_game_shows_each_curve_beside_its_equilibrium():
    figure = game_figure(COURSE, 0.0, False, "gan on ring")
    said, losses, norms = figure.axes
    shown = [list(zip(*line.get_data(), strict=True)) for axes in figure.axes for line in axes.lines[:2]]
    assert shown == list(COURSE.values())
    assert levels(said) == [0.5] and norms.get_yscale() == "log"
    assert levels(losses) == pytest.approx([2 * math.log(2), math.log(2)])
    assert "D(x) = 0.60, D(G(z)) = 0.40, loss of D 1.20" in words(figure)
    assert "2 log 2 = 1.386" in words(figure) and "G: log 2 = 0.693" in words(figure)
    low, high = losses.get_ylim()
    assert low < 0.693 and high > 3


def test_smoothing_and_minimax_move_the_lines():
    said, losses, _ = game_figure(COURSE, 0.2, True, "gan").axes
    assert levels(said) == pytest.approx([0.5, 0.4])
    assert levels(losses)[1] == pytest.approx(math.log(0.6)) and losses.get_ylim()[0] < math.log(0.6)
    assert "log 2" not in words(said.figure) and "s = 0.2" in words(said.figure)


def test_a_run_without_a_game_has_no_figure_of_it():
    with pytest.raises(UserError, match=r"gan-1 has no figure 'game': it has no metric train/d_real\.$"):
        game(run())


def test_gradients_are_compared_over_the_same_steps():
    norms = {"minimax": [[(1, 0.1), (2, 0.3)], [(1, 0.2), (2, 0.2)]], "non-saturating": [[(1, 2.0), (2, 4.0)]]}
    fakes = {"minimax": [[(1, 0.1), (2, 0.3)]], "non-saturating": [[(1, 0.25), (2, 0.25)]]}
    left, right = gradients_figure(norms, fakes, "gan").axes
    assert "in the first 2 steps is 15.0 times as large" in left.figure.get_suptitle()
    assert [line.get_ydata().tolist() if hasattr(line.get_ydata(), "tolist") else list(line.get_ydata())
            for line in left.lines] == [[0.1, 0.3], [0.2, 0.2], [2.0, 4.0]]  # fmt: skip
    dots = [tuple(np.concatenate(line.get_data())) for line in right.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx((0.2, 0.2)), pytest.approx((0.25, 0.75))]
    # the weights are the derivatives of the losses by the logit
    logit = torch.tensor(0.7, requires_grad=True)
    (minimax,) = torch.autograd.grad(torch.log(1 - logit.sigmoid()), logit)
    (other,) = torch.autograd.grad(-torch.log(logit.sigmoid()), logit)
    weights = {line.get_label().partition(",")[0]: line.get_data() for line in right.lines if len(line.get_xdata()) > 1}
    d = float(logit.detach().sigmoid())
    assert np.interp(d, *weights["minimax"]) == pytest.approx(-float(minimax), abs=1e-6)
    assert np.interp(d, *weights["non-saturating"]) == pytest.approx(-float(other), abs=1e-6)


def test_both_losses_are_needed():
    metrics = {"step/g_grad_norm": 1.0, "step/d_fake": 0.5}
    with pytest.raises(UserError, match="no run here has the non-saturating one"):
        both_losses(run(metrics=metrics, params={"loss": "minimax"}))


# samples as training goes


def test_epochs_are_denser_at_the_beginning():
    assert spaced(range(0, 41, 2), 7) == [0, 2, 4, 6, 12, 22, 40]
    assert spaced([0, 1, 2], 7) == [0, 1, 2]
    assert spaced(range(13), 8) == [0, 1, 2, 3, 4, 5, 8, 12]


def test_each_row_is_an_epoch_of_the_same_codes():
    images = {epoch: torch.rand(64, 1, 28, 28) for epoch in (0, 5)}
    stored = {"samples": {epoch: grid(x) for epoch, x in images.items()}}
    figure = samples_over_training(run(image=(1, 28, 28), pictures_by_epoch=stored.get))
    assert [axes.get_ylabel() for axes in figure.axes if axes.get_ylabel()] == ["epoch 0", "epoch 5"]
    shown = figure.axes[13].images[0].get_array()  # the fourth of epoch 5
    torch.testing.assert_close(torch.tensor(shown), images[5][3, 0], rtol=0, atol=0.51 / 255)


def test_pictures_of_points_are_shown_whole():
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[0, 0] = 255
    figure = pictures_figure({"epoch 0": picture, "epoch 3": picture}, "gan")
    assert [axes.get_title() for axes in figure.axes] == ["epoch 0", "epoch 3"]
    assert figure.axes[0].images[0].get_array()[0, 0].tolist() == [1, 1, 1]


def test_an_animation_has_a_frame_an_epoch(tmp_path):
    stored = {epoch: np.full((100, 50, 3), 20 * epoch, np.uint8) for epoch in (0, 4, 2)}
    frames = animation(stored, "gan")
    assert [frame.getpixel((30, frame.height - 1)) for frame in frames] == [(value,) * 3 for value in (0, 40, 80)]
    assert all(frame.size == (400, 856) for frame in frames)  # eight times as large, below a line of text
    animate_samples(run(pictures_by_epoch=lambda name: stored), tmp_path / "new" / "game.gif")
    with PIL.Image.open(tmp_path / "new" / "game.gif") as gif:
        assert gif.n_frames == 3 and gif.size == (400, 856) and gif.info["loop"] == 0


# points and the field


MODES = Modes(torch.tensor([[0.2, 0.2], [0.8, 0.8]]), 0.02)


def test_modes_that_are_lost_are_dashed():
    drawn = torch.tensor([[0.2, 0.2]] * 60 + [[0.5, 0.5]] * 40)
    figure = points_figure(torch.rand(50, 2), drawn, MODES, "gan on ring")
    left, right = figure.axes
    circles = [patch for patch in left.patches if isinstance(patch, Circle)]
    assert [patch.center for patch in circles] == [pytest.approx(centre) for centre in MODES.centres.tolist()]
    assert circles[0].radius == pytest.approx(0.06)
    assert circles[0].get_linestyle() == "-" and circles[1].get_linestyle() != "-"
    assert [bar.get_height() for bar in right.patches] == pytest.approx([60, 0])
    assert "1 of 2 modes, 60 % of the samples near one" in words(figure) and "equal shares, 50 %" in words(figure)
    assert "50 real points" in words(figure) and "100 samples" in words(figure)


def test_arrows_point_up_the_logit():
    side = 21
    x = plane(side).flatten(1)
    logits = -((x - torch.tensor([0.3, 0.7])) ** 2).sum(1).reshape(side, side)  # highest at (0.3, 0.7)
    starts_x, starts_y, u, v = (part.ravel() for part in arrows(logits))
    inner = (starts_x > 0.1) & (starts_x < 0.9) & (starts_y > 0.1) & (starts_y < 0.9)
    wanted = np.stack([0.3 - starts_x, 0.7 - starts_y])[:, inner]
    cosine = (wanted * np.stack([u, v])[:, inner]).sum(0)
    cosine /= np.linalg.norm(wanted, axis=0) * np.hypot(u, v)[inner] + 1e-12
    assert cosine[np.linalg.norm(wanted, axis=0) > 0.06].min() > 0.99
    assert np.hypot(u, v).max() == pytest.approx(0.045)
    _, _, u, v = arrows(logits / 10)
    assert np.hypot(u, v).max() == pytest.approx(0.045 * 0.2 * np.hypot(0.675, 0.725) / 1, rel=0.1)  # nearly flat
    flat = arrows(torch.zeros(5, 5))
    assert (flat[2] == 0).all() and (flat[3] == 0).all()


def test_the_field_lies_as_the_points_do():
    logits = torch.zeros(5, 5)
    logits[0, 4] = 3.0  # below right
    real, drawn = torch.tensor([[0.2, 0.2]]), torch.tensor([[0.8, 0.8]] * 4)
    figure = field_figure(real, drawn, logits, (torch.tensor([2.0]), torch.full((4,), -1.0)), MODES, "gan on ring")
    left, right = figure.axes[:2]
    image = left.images[0]
    assert image.origin == "lower" and list(image.get_extent()) == [0, 1, 0, 1]
    assert image.get_array()[0, 4] == pytest.approx(1 / (1 + math.exp(-3)))
    assert image.norm.vmin + image.norm.vmax == pytest.approx(1)
    assert any(isinstance(each, Quiver) for each in left.collections)
    below, above = (each for each in left.collections if not isinstance(each, Quiver))
    assert below.get_offsets().tolist() == [pytest.approx([0.2, 0.2])] and len(above.get_offsets()) == 4
    assert tuple(above.get_facecolor()[0][:3]) == to_rgb(COLOURS[1])
    assert "means 0.88 and 0.27" in right.get_title() and "1 of 2 modes, 100 % of the samples" in words(figure)


@pytest.mark.parametrize("draw", [points, vector_field])
def test_images_are_no_points(draw):
    data = open_data("digits")
    recipe = recipe_files.build(recipe_files.available()["gan"], data.image, {}, 10)
    with pytest.raises(UserError, match="digits are no points in the plane, such as --data ring"):
        draw(run(recipe, data.image, "digits"))


def test_points_have_no_tiles():
    with pytest.raises(UserError, match="points in the plane"):
        taxonomy_figure({"real images": torch.rand(4, 1, 1, 2)}, {}, "ring")


# the taxonomy


def test_a_sheet_has_its_images_row_by_row():
    images = torch.rand(7, 1, 14, 14)
    made = sheet(images)
    assert made.shape == (2 * 15 - 1, 5 * 15 - 1, 3)
    torch.testing.assert_close(torch.from_numpy(made[15:29, 15:29, 0]), images[6, 0])
    assert (made[15:, 30:] == 1).all()


def test_the_taxonomy_says_what_is_known_of_each_model():
    metrics = {"test/fd_lenet": 12.34, "test/coverage_lenet": 0.5, "test/sample_seconds": 0.25}
    nll = {"test/marginal_nll": 98.76}
    data = SimpleNamespace(test=SimpleNamespace(batch=lambda index: (torch.ones(30, 1, 14, 14), None)))

    def model(name, recipe, metrics, how=""):
        tags = {"aelab.marginal_nll": how, "aelab.likelihood": "binary"} if how else {}
        drawn = {"data": lambda: data, "sample": lambda n: torch.zeros(n, 1, 14, 14)}
        return run(recipe, (1, 14, 14), "mnist", of=name, metrics=metrics, tags=tags, **drawn)

    figure = taxonomy(
        model("gan", Draws(), metrics | {"test/real_fd_lenet": 1.5, "test/real_coverage_lenet": 0.97}),
        model("vae", Likelihood(), metrics | nll, "bound"),
        model("rbm", Likelihood(), nll, "AIS"),
        model("pixelcnn", Likelihood(), metrics | nll, "exact"),
        model("untested", Likelihood(), {}),
    )
    cells = {axes.get_title(): [text.get_text() for text in axes.texts] for axes in figure.axes}
    assert list(cells) == ["real images", "pixelcnn", "vae", "rbm", "gan", "untested"]
    assert cells["pixelcnn"] == ["= 98.8 nats, exact", "of binary pixels", "12.3", "50 %", "0.25 s"]
    assert cells["vae"][0] == "≤ 98.8 nats, bound"
    assert cells["rbm"] == ["≈ 98.8 nats, AIS", "of binary pixels", "—", "—", "—"]
    assert cells["gan"] == ["none", "", "12.3", "50 %", "0.25 s"]
    assert cells["untested"] == ["—", "", "—", "—", "—"]
    assert cells["real images"][::2] == ["—", "", "1.5", "97 %", "—"]
    assert cells["real images"][1::2] == ["-log p(x)", "", "Fréchet distance", "coverage", "64 samples in"]
    shown = [float(axes.images[0].get_array()[0, 0, 0]) for axes in figure.axes]
    assert shown == [1, 0, 0, 0, 0, 0]


def test_a_run_on_points_is_loaded_and_read_back():
    trained = aelab.train("gan", data="ring", epochs=1, max_steps=4, hidden=8, name="game")
    loaded = aelab.load("game")  # its code of 16 is the default, and larger than an image
    stored = loaded.pictures_by_epoch("samples")
    assert list(stored) == [0, 1] and (stored[0] != stored[1]).any()
    last = dict(pictures(trained.recipe, trained.data()))["samples"]
    assert (stored[1] == last).all()
    assert len(samples_over_training(loaded).axes) == 2
    logits = loaded.discriminate(plane(3))
    assert logits.shape == (9,) and torch.equal(
        logits, loaded.discriminate(plane(3))
    )  # the noise is the same each time
    with pytest.raises(UserError, match="no pictures of others by epoch"):
        loaded.pictures_by_epoch("others")
    with pytest.raises(UserError, match="at least 4 x 4 pixels"):
        loaded.verdicts(plane(3))


def test_a_net_of_convolutions_refuses_points_in_a_line(cli):
    answer = cli("train", "vae", "--data", "ring", "--max-steps", 4)
    assert answer.code == 2 and "images of 1 x 2 pixels are too small for the convolutions of vae." in answer.err
    assert "Traceback" not in answer.err and "--net mlp" in answer.err
