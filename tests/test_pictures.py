import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.text import Text
from opened import opened

from aelab import figures
from aelab.errors import UserError, visible
from aelab.figures import bars, completion_grid, contact_sheet, curve, curves, grid, save
from aelab.figures.grids import GAP, linear, spherical


class Doubles:
    """Encodes an image as its pixels; decodes to the negative, so that originals and reconstructions differ."""

    def __init__(self, image=(1, 28, 28)):
        self.image = image

    def encode(self, x):
        return x.flatten(1)

    def decode(self, z):
        return 1 - z.reshape(len(z), *self.image)


def tile(sheet, row, column, height=28, width=28):
    top, left = row * (height + GAP) + GAP, column * (width + GAP) + GAP
    return sheet[top : top + height, left : left + width]


# grids


@pytest.mark.parametrize(
    ("count", "columns", "rows", "wide"), [(1, 8, 1, 1), (5, 8, 1, 5), (8, 8, 1, 8), (9, 8, 2, 8), (6, 3, 2, 3)]
)
def test_grid_has_its_size(count, columns, rows, wide):
    sheet = grid(torch.rand(count, 1, 28, 30), columns)
    assert sheet.shape == (rows * (28 + GAP) + GAP, wide * (30 + GAP) + GAP, 3)
    assert sheet.dtype == np.uint8 and sheet.flags.c_contiguous


def test_grid_shows_every_pixel_in_its_place():
    pixels = torch.randint(0, 256, (7, 3, 28, 31), dtype=torch.uint8)
    sheet = grid(pixels.float() / 255, 3)
    covered = np.zeros(sheet.shape[:2], bool)
    for k, image in enumerate(pixels):
        assert np.array_equal(tile(sheet, k // 3, k % 3, 28, 31), image.permute(1, 2, 0).numpy())
        tile(covered, k // 3, k % 3, 28, 31)[:] = True
    assert (sheet[~covered] == 128).all()  # the ground, and where the last row ends


def test_completions_stand_below_the_half_that_they_complete():
    class Fills:
        """Observes the negative of an image, and fills the rest with the value of a code."""

        def observe(self, x):
            return 1 - x

        def complete(self, x, rows, z):
            return torch.cat([x[:, :, :rows], z[:, :, None, None].expand(-1, 1, 28 - rows, 28)], 2)

    x = torch.rand(3, 1, 28, 28).round()
    codes = [torch.full((3, 1), 0.2), torch.full((3, 1), 0.8)]
    sheet = completion_grid(Fills(), x, codes)
    for column, image in enumerate(x):
        seen = (1 - image[0]).numpy() * 255
        assert np.array_equal(tile(sheet, 0, column)[..., 0], seen)
        for row, below in ((1, 128), (2, 51), (3, 204)):
            assert np.array_equal(tile(sheet, row, column)[:14, :, 0], seen[:14])
            assert (tile(sheet, row, column)[14:] == below).all()
    assert sheet.shape[:2] == (4 * (28 + GAP) + GAP, 3 * (28 + GAP) + GAP)


@pytest.mark.parametrize(("height", "width", "scale"), [(8, 8, 4), (27, 40, 2), (28, 8, 4), (14, 14, 2), (32, 32, 1)])
def test_small_images_are_enlarged_pixel_by_pixel(height, width, scale):
    pixels = torch.randint(0, 256, (1, 1, height, width), dtype=torch.uint8)
    sheet = grid(pixels.float() / 255)
    expected = np.kron(pixels[0, 0].numpy(), np.ones((scale, scale), np.uint8))
    assert np.array_equal(sheet[GAP:-GAP, GAP:-GAP, 0], expected)


def test_grey_becomes_rgb():
    sheet = grid(torch.rand(2, 1, 28, 28))
    assert np.array_equal(sheet[..., 0], sheet[..., 1]) and np.array_equal(sheet[..., 0], sheet[..., 2])


def test_values_out_of_range_are_clamped_not_wrapped():
    sheet = grid(torch.tensor([-0.5, 0.0, 1.0, 1.7]).reshape(4, 1, 1, 1).expand(-1, 1, 28, 28), 4)
    assert [int(tile(sheet, 0, k).max()) for k in range(4)] == [0, 0, 255, 255]
    assert [int(tile(sheet, 0, k).min()) for k in range(4)] == [0, 0, 255, 255]


def test_grid_takes_what_a_network_gives():
    images = torch.full((1, 1, 28, 28), 0.5, requires_grad=True, dtype=torch.bfloat16)
    assert tile(grid(images), 0, 0)[0, 0].tolist() == [128] * 3


def test_written_picture_reads_back(tmp_path):
    sheet = grid(torch.rand(4, 3, 28, 28))
    figures.write(tmp_path / "new/a.png", sheet)
    large = np.asarray(opened(tmp_path / "new/a.png"))
    assert large.shape == (7 * 32, 7 * 122, 3), "at least 800 pixels wide, by a whole factor"
    assert np.array_equal(large[3::7, 3::7], sheet)


@pytest.mark.parametrize("name", ["a.xyz", "a", "file/a.png"])
def test_picture_that_cannot_be_written(tmp_path, name):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write"):
        figures.write(tmp_path / name, np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_reconstructions_lie_below_their_inputs(rows):
    x = torch.rand(8 * rows, 1, 28, 28)
    sheet = figures.reconstruction_grid(Doubles(), x).astype(int)
    for k, image in enumerate(x):
        above, below = (tile(sheet, 2 * (k // 8) + add, k % 8)[..., 0] for add in (0, 1))
        assert np.array_equal(above, (image[0] * 255).round().int().numpy())
        assert np.abs(above + below - 255).max() <= 1


@pytest.mark.parametrize("count", [5, 11])
def test_reconstructions_of_an_odd_number_lie_below_their_inputs(count):
    x = torch.zeros(count, 1, 28, 28)
    sheet = figures.reconstruction_grid(Doubles(), x)
    for k in range(count):
        above, below = (tile(sheet, 2 * (k // 8) + add, k % 8) for add in (0, 1))
        assert above.size and (above == 0).all()
        assert below.size and (below == 255).all()


# paths between codes


def test_linear_path():
    a, b = torch.randn(5), torch.randn(5)
    points = linear(a, b, torch.tensor([0.0, 0.25, 1.0]))
    assert torch.equal(points[0], a) and torch.equal(points[2], b)
    torch.testing.assert_close(points[1], 0.75 * a + 0.25 * b)


@pytest.mark.parametrize("dimension", [2, 3, 64])
@pytest.mark.parametrize("seed", range(5))
def test_spherical_path_turns_evenly_on_the_sphere(dimension, seed):
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        torch.nn.functional.normalize(torch.randn(dimension, generator=generator, dtype=torch.float64), dim=0)
        for _ in "ab"
    )
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    points = spherical(a, b, t)
    torch.testing.assert_close(points[[0, -1]], torch.stack([a, b]), rtol=0, atol=1e-12)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(11, dtype=torch.float64))
    whole = torch.arccos(a @ b)
    torch.testing.assert_close(torch.arccos((points @ a).clamp(-1, 1)), t * whole, rtol=0, atol=1e-6)
    assert torch.linalg.matrix_rank(torch.cat([torch.stack([a, b]), points]), atol=1e-9) == 2  # in the plane of a and b


def test_spherical_path_ends_exactly_at_codes_of_any_length():
    a, b = 3 * torch.randn(20), 0.1 * torch.randn(20)
    t = torch.linspace(0, 1, 9)
    points = spherical(a, b, t)
    torch.testing.assert_close(points[0], a)
    torch.testing.assert_close(points[-1], b)
    torch.testing.assert_close(points.norm(dim=1), torch.lerp(a.norm(), b.norm(), t))


@pytest.mark.parametrize(
    ("a", "b"),
    [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0]), ([1.0, 2.0], [2.0, 4.0]),
     ([1.0, 2.0], [1.0, 2.0]), ([1.0, 2.0], [-1.0, -2.0])],
    ids=["from zero", "to zero", "zeros", "parallel", "equal", "opposite"],
)  # fmt: skip
def test_spherical_path_is_straight_where_no_arc_is(a, b):
    a, b, t = torch.tensor(a), torch.tensor(b), torch.linspace(0, 1, 5)
    points = spherical(a, b, t)
    assert torch.isfinite(points).all()
    torch.testing.assert_close(points, linear(a, b, t))


def test_codes_of_one_dimension_get_the_straight_line():
    points = spherical(torch.tensor([1.0]), torch.tensor([-3.0]), torch.linspace(0, 1, 3))
    torch.testing.assert_close(points.flatten(), torch.tensor([1.0, -1.0, -3.0]))


# figures


def test_contact_sheet_has_a_column_for_each(tmp_path):
    some = {name: torch.rand(10, 1, 28, 28) for name in ("original", "linear-abc", "vae-def")}
    figure = contact_sheet(some, "title")
    assert [axes.get_title() for axes in figure.axes] == list(some)
    for axes, images in zip(figure.axes, some.values(), strict=True):
        assert np.array_equal(axes.images[0].get_array(), grid(images, 2))
    figure.savefig(tmp_path / "sheet.png")
    assert opened(tmp_path / "sheet.png").width > 300


def test_contact_sheet_of_one_column(tmp_path):
    figure = contact_sheet({"original": torch.rand(3, 3, 8, 8)}, "title")
    figure.savefig(tmp_path / "sheet.png")
    assert len(figure.axes) == 1


def test_curve_draws_its_points_over_their_own_ticks(tmp_path):
    x, lines = [2, 8, 32], {"model": [3.0, 2.0, 1.0], "PCA": [4.0, 3.0, 2.0]}
    figure = curve(x, lines, "latent dimension", "error", "title")
    (axes,) = figure.axes
    assert {line.get_label(): list(line.get_ydata()) for line in axes.lines} == lines
    assert all(list(line.get_xdata()) == x for line in axes.lines)
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "8", "32"]
    assert axes.get_ylim()[0] == 0
    figure.savefig(tmp_path / "curve.png")
    assert opened(tmp_path / "curve.png").width == 825


def test_curve_of_one_point_is_drawn(tmp_path):
    curve([16], {"model": [1.0]}, "x", "y", "title").savefig(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 1000


def test_curve_draws_every_line():
    figure = curve([1, 2], {str(k): [1.0, 2.0] for k in range(5)}, "x", "y", "title")
    assert len(figure.axes[0].lines) == 5


@pytest.mark.parametrize("name", ["$x_{$", "$\\alpha$ 100 %"])
@pytest.mark.parametrize("rc", [{}, {"text.usetex": True, "text.parse_math": True}])
def test_a_name_is_drawn_as_it_is_never_as_mathematics(name, rc, tmp_path, monkeypatch):
    for key, value in rc.items():
        monkeypatch.setitem(matplotlib.rcParams, key, value)
    figures = {
        "bars": bars({name: 1.0, "b": 2.0}, name),
        "sheet": contact_sheet({name: torch.zeros(2, 1, 8, 8)}, name),
        "curve": curve([1.0, 2.0], {name: [1.0, 2.0]}, name, name, name),
        "curves": curves({name: [(1, 1.0), (2, 30.0)]}, name),
    }
    for stem, figure in figures.items():
        save(tmp_path / f"{stem}.png", figure)
        shown = [text for text in figure.findobj(Text) if name in text.get_text()]
        assert shown and not any(text.get_parse_math() or text.get_usetex() for text in shown), stem


@pytest.mark.parametrize("name", ["a\udcffb", "\x1b[31m", "_a"])
def test_any_name_can_be_drawn(name, tmp_path):
    for figure in (
        bars({name: 1.0}, "share"),
        curves({name: [(1, 1.0)]}, "loss"),
        contact_sheet({name: torch.zeros(1, 1, 8, 8)}, ""),
    ):
        save(tmp_path / "a.png", figure)
        assert visible(name) in [text.get_text() for text in figure.findobj(Text)]


def test_the_ticks_of_a_logarithmic_axis_are_plain_numbers(tmp_path):
    for values in ((1e-3, 20.0), (2.0, 3.0)):
        figure = curves({"a": list(enumerate(values))}, "best/loss")
        save(tmp_path / "a.png", figure)
        axis = figure.axes[0].yaxis
        texts = [label.get_text() for label in (*axis.get_ticklabels(), *axis.get_ticklabels(minor=True))]
        assert any(texts) and all(float(text.replace("\N{MINUS SIGN}", "-")) > 0 for text in texts if text)


def test_drawing_leaves_the_users_style_alone(tmp_path):
    """A notebook's own settings are neither used nor changed, not even those that are read when a figure is written."""
    with matplotlib.rc_context({"font.size": 21.0, "text.usetex": True}):
        figure = bars({"$x^2$": 1.0}, "share")
        save(tmp_path / "bars.png", figure)
        assert matplotlib.rcParams["font.size"] == 21.0 and matplotlib.rcParams["text.usetex"]
    assert not any(text.get_usetex() for text in figure.findobj(Text))
