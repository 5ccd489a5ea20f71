"""Figures of denoising: rows of images, PSNR by strength of the noise, filters of the first layer."""

import numpy as np
import pytest
import torch
from aelab.recipes.denoising import Denoising
from fake_run import FakeRun, Identity

from aelab.errors import UserError
from aelab.figures import denoising, first_layer_filters, psnr_by_noise
from aelab.figures.grids import filter_grid
from aelab.figures.noise import FILTERS, psnr, strongest


class Dims(Identity):
    """Its noise adds 0.1 to each pixel, and what it removes is half of each pixel."""

    def corrupt(self, x):
        return x + 0.1

    def decode(self, z):
        return super().decode(z) / 2


class Filtered(Identity):
    def __init__(self, n=50):
        super().__init__()
        self.kernels = torch.randn(n, *self.image)

    def filters(self):
        return self.kernels


def run(level, name="some-run", noise="gaussian", elsewhere=None, **own):
    """A run that was evaluated at its own level, with PSNR `model`, `linear` and `nothing`, and at other levels."""
    names = {"model": "", "linear": "linear_", "nothing": "nothing_"}
    metrics = {f"test/{names[key]}denoised_psnr": value for key, value in own.items() if key in names}
    for other, value in (elsewhere or {}).items():
        metrics |= {
            f"test/level-{other}/denoised_psnr": value,
            f"test/level-{other}/linear_denoised_psnr": value - 1,
            f"test/level-{other}/nothing_denoised_psnr": value - 2,
        }
    options = {key: value for key, value in own.items() if key not in names}
    return FakeRun(Dims(), name, metrics=metrics, of="denoising", level=level, noise=noise, **options)


def lines(axes):
    return {line.get_label(): line.get_xydata().tolist() for line in axes.lines}


def test_rows_are_the_noisy_image_what_became_of_it_and_the_clean_one():
    figure = denoising(FakeRun(Dims(), of="denoising", noise="gaussian", level=0.5, latent_dim=16), n=3)
    noisy, denoised, clean = np.array(figure.axes).reshape(3, 3)
    assert [cells[0].get_ylabel() for cells in (noisy, denoised, clean)] == ["noisy", "denoised", "clean"]
    x = FakeRun().data().test.images[:3, 0] / 255
    for k in range(3):
        assert np.allclose(clean[k].images[0].get_array(), x[k])
        assert np.allclose(noisy[k].images[0].get_array(), (x[k] + 0.1).clamp(0, 1))
        assert np.allclose(denoised[k].images[0].get_array(), (x[k] + 0.1) / 2)
        mse = float(((x[k] + 0.1) / 2 - x[k]).square().mean())
        assert denoised[k].get_xlabel() == f"{-10 * np.log10(mse):.1f} dB"
    assert figure.get_suptitle().startswith("denoising on noise, code of 16: Gaussian noise, σ = 0.5\n")


def test_the_psnr_of_an_image_is_that_of_the_pixels_that_are_seen():
    clean = torch.zeros(2, 1, 2, 2)
    assert psnr(torch.full((2, 1, 2, 2), 0.1), clean) == pytest.approx([20, 20], rel=1e-6)
    assert psnr(torch.full((2, 1, 2, 2), -3.0), clean) == [120, 120]  # black, clipped


def test_a_run_that_was_evaluated_at_several_levels_is_a_line_beside_the_filter_and_the_noisy_image():
    trained = run(0.5, model=20.0, linear=18.0, nothing=9.0, elsewhere={"0.25": 22.0, "1.0": 15.0})
    figure = psnr_by_noise(trained)
    found = lines(figure.axes[0])
    assert found["denoising, trained at 0.5"] == [[0.25, 22], [0.5, 20], [1, 15]]
    assert found["best linear (Wiener) filter, clipped"] == [[0.25, 21], [0.5, 18], [1, 14]]
    assert found["noisy image, clipped"] == [[0.25, 20], [0.5, 9], [1, 13]]
    assert figure.axes[0].get_xlabel() == "standard deviation of the noise"


def test_runs_that_were_trained_at_several_levels_make_one_line_with_a_band_over_seeds():
    figure = psnr_by_noise(
        run(0.25, model=22.0, linear=20.0, nothing=15.0),
        run(0.5, model=20.0, linear=18.0, nothing=9.0),
        run(0.5, model=22.0, linear=18.0, nothing=9.0, seed=1),
    )
    found = lines(figure.axes[0])
    assert found.pop("denoising, each trained at its level") == [[0.25, 22], [0.5, 21]]
    assert set(found) == {"best linear (Wiener) filter, clipped", "noisy image, clipped"}
    (band,) = figure.axes[0].collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((21 - 2**0.5, 21 + 2**0.5))


def test_each_kind_of_noise_has_its_panel():
    figure = psnr_by_noise(run(0.5, model=20.0), run(0.3, model=25.0, noise="dropout"))
    assert [axes.get_title() for axes in figure.axes] == ["gaussian noise", "dropout noise"]
    assert [list(lines(axes).values()) for axes in figure.axes] == [[[[0.5, 20]]], [[[0.3, 25]]]]
    assert figure.axes[1].get_xlabel() == "probability that a pixel is 0"


def test_a_run_that_was_not_evaluated_is_told_so():
    with pytest.raises(UserError, match="no metric test/denoised_psnr"):
        psnr_by_noise(run(0.5))
    with pytest.raises(UserError, match="identity has no noise to remove"):
        denoising(FakeRun())


def test_filters_come_from_no_noise_to_strong_noise_the_strongest_of_each_first():
    runs = [FakeRun(Filtered(), f"run-{level:g}", noise="gaussian", level=level) for level in (1.0, 0.0, 0.5)]
    figure = first_layer_filters(*runs)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == [
        "run-0\nno noise",
        "run-0.5\nGaussian noise, σ = 0.5",
        "run-1\nGaussian noise, σ = 1.0",
    ]
    for axes, each in zip(shown, (runs[1], runs[2], runs[0]), strict=True):
        picture = filter_grid(strongest(each.recipe.kernels, FILTERS), 6)
        assert np.array_equal(axes.images[0].get_array(), picture)


def test_the_strongest_filters_are_those_of_the_largest_norm():
    kernels = torch.ones(4, 1, 2, 2) * torch.tensor([1.0, -5, 3, 0]).view(4, 1, 1, 1)
    assert strongest(kernels, 3)[:, 0, 0, 0].tolist() == [-5, 3, 1]


def test_a_filter_of_the_denoising_autoencoder_is_what_its_first_unit_multiplies_an_image_with():
    recipe = Denoising((3, 4, 5), hidden=(7,), latent_dim=2)
    x = torch.randn(1, 3, 4, 5)
    first = recipe.encoder[1](x.flatten(1)) - recipe.encoder[1].bias
    assert recipe.filters().shape == (7, 3, 4, 5)
    assert torch.allclose((recipe.filters() * x).sum((1, 2, 3)), first[0], atol=1e-5)
