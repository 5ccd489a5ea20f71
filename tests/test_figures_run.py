"""Figures of runs that were really trained: what a run offers to them, and the numbers that the evaluation tracked."""

import pytest
import torch

import aelab
from aelab.errors import UserError
from aelab.figures import FIGURES, available, denoising, first_layer_filters, psnr_by_noise


@pytest.fixture
def denoiser(here):
    options = {"hidden": (12,), "latent_dim": 4, "level": 0.5, "max_steps": 5}
    return aelab.train("denoising", data="digits", epochs=1, **options)


def test_figures_of_a_denoiser_are_those_of_its_metrics_and_its_weights(denoiser):
    assert "psnr-by-noise" not in available(denoiser)
    assert {"denoising", "reconstructions", "first-layer-filters", "error-by-code-size"} <= set(available(denoiser))
    assert {"samples", "error-by-labels", "pca-plane"}.isdisjoint(available(denoiser))
    denoiser.evaluate(plain=True)
    aelab.evaluate(denoiser.id, options={"level": 0.25})
    run = aelab.load(denoiser.id)
    (axes,) = psnr_by_noise(run).axes
    found = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    here, there = "test/", "test/level-0.25/"
    for label, name in (
        ("denoising, trained at 0.5", "denoised_psnr"),
        ("best linear (Wiener) filter, clipped", "linear_denoised_psnr"),
        ("noisy image, clipped", "nothing_denoised_psnr"),
    ):
        assert found[label] == [[0.25, run.metrics[there + name]], [0.5, run.metrics[here + name]]]
    assert "psnr-by-noise" in available(run)
    assert all(name in FIGURES for name in available(run))
    assert len(first_layer_filters(run).axes[0].images) == 1

    x = run.data().test.batch(slice(0, 50))[0]
    noisy = run.corrupt(x)
    assert float((noisy - x).std()) == pytest.approx(0.5, rel=0.05)
    assert torch.equal(noisy, run.corrupt(x, seed=0))
    assert not torch.equal(noisy, run.corrupt(x, seed=1))
    shown = torch.tensor(denoising(run, n=1).axes[0].images[0].get_array())
    assert torch.allclose(shown, noisy[0, 0].clamp(0, 1))

    mean, components = run.pca(3)
    train = run.data().train.images.flatten(1).double() / 255
    assert torch.allclose(mean, train.mean(0))
    assert torch.allclose(components @ components.T, torch.eye(3).double(), atol=1e-9)
    left = (train - mean) - (train - mean) @ components.T @ components
    values = torch.linalg.svdvals(train - mean)
    assert float(left.square().sum()) == pytest.approx(float(values[3:].square().sum()))


def test_a_run_that_removes_no_noise_adds_none(here):
    run = aelab.train("linear", data="digits", epochs=1, latent_dim=2, max_steps=2)
    assert "pca-plane" in available(run)
    with pytest.raises(UserError, match="linear does not denoise"):
        run.corrupt(run.data().test.batch(slice(0, 2))[0])
