"""The plane of a linear autoencoder and PCA's: alignment, angles, and the toy in three dimensions."""

import numpy as np
import pytest
import torch
from fake_run import FakeRun, Identity
from scipy.linalg import subspace_angles

from aelab.errors import UserError
from aelab.figures import pca_plane, toy_plane
from aelab.figures.linear_plane import decoder_matrix, principal_angles, procrustes, toy


class Affine(Identity):
    """x^ = V z + b with z = pinv(V) (x - b): a projection onto the plane of V through b."""

    def __init__(self, v, b):
        super().__init__()
        self.v, self.b = v, b

    def encode(self, x):
        return (x.flatten(1) - self.b) @ torch.linalg.pinv(self.v).T

    def decode(self, z):
        return (z @ self.v.T + self.b).view(-1, *self.image)


class Bent(Affine):
    def decode(self, z):
        return super().decode(z).sigmoid()


def optimal(size, mixed):
    """A linear autoencoder at its optimum, with a code that was multiplied by an invertible matrix."""
    mean, components = FakeRun().pca(size)
    return FakeRun(Affine((components.T @ mixed).float(), mean.float()), of="linear", latent_dim=size)


def test_procrustes_undoes_a_rotation_a_reflection_a_shift_and_a_scale():
    generator = np.random.default_rng(0)
    points = generator.normal(size=(30, 3))
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0] @ np.diag([1, 1, -1])
    found = procrustes(points, 2.5 * points @ turn + 4)
    assert found.scale == pytest.approx(2.5)
    assert found.left == pytest.approx(0, abs=1e-20)
    assert np.allclose(found.points, found.onto)


def test_procrustes_does_not_undo_a_shear():
    points = np.random.default_rng(0).normal(size=(200, 2))
    assert procrustes(points, points * [1, 3]).left > 0.1


def test_principal_angles_are_those_of_scipy_from_small_to_large():
    generator = np.random.default_rng(0)
    a, b = generator.normal(size=(2, 9, 3))
    assert principal_angles(a, b) == pytest.approx(np.degrees(subspace_angles(a, b))[::-1])
    tilted = np.array([[1, 0], [0, np.cos(1e-9)], [0, np.sin(1e-9)]])
    assert np.radians(principal_angles(np.eye(3)[:, :2], tilted)) == pytest.approx([0, 1e-9], rel=1e-5, abs=1e-15)


def test_a_linear_autoencoder_at_its_optimum_has_the_plane_of_pca_whatever_its_axes():
    mixed = torch.tensor([[2.0, 1.0], [0.5, -1.0]]).double()  # turned, mirrored and sheared
    figure = pca_plane(optimal(2, mixed))
    left, right = figure.axes
    ours, theirs = (np.concatenate([dots.get_offsets() for dots in axes.collections]) for axes in (left, right))
    assert np.allclose(ours, theirs, atol=1e-5)
    assert len(ours) == 40
    title = figure.get_suptitle()
    assert "0.00° and 0.00°" in title
    assert "one scale, 1.000" in title
    assert "linear on noise, code of 2" in title


def test_another_plane_has_other_angles_and_other_points():
    v = torch.eye(16)[:, :2]
    run = FakeRun(Affine(v, torch.zeros(16)), of="linear", latent_dim=2)
    angles = np.degrees(subspace_angles(v.numpy(), run.pca(2)[1].T.numpy()))[::-1]
    assert f"{angles[0]:.2f}° and {angles[1]:.2f}°" in pca_plane(run).get_suptitle()


def test_of_a_longer_code_the_first_two_directions_are_seen_and_the_range_of_angles_is_said():
    run = optimal(4, torch.eye(4).double().flip(0))
    figure = pca_plane(run)
    x = run.data().test.images.flatten(1).double() / 255
    components = run.pca(4)[1]
    scores = (x - x.mean(0)) @ components.T
    seen = np.concatenate([dots.get_offsets() for dots in figure.axes[0].collections])
    by_class = torch.arange(40).reshape(-1)[torch.argsort(torch.arange(40) % 3, stable=True)]
    assert np.allclose(seen, scores[by_class, :2], atol=1e-5)
    assert "0.00° to 0.00° (4 of them)" in figure.get_suptitle()


def test_points_are_coloured_and_named_by_class():
    figure = pca_plane(optimal(2, torch.eye(2).double()))
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b", "c"]
    colours = [tuple(dots.get_facecolor()[0]) for dots in figure.axes[0].collections]
    assert len(set(colours)) == 3
    assert [len(dots.get_offsets()) for dots in figure.axes[0].collections] == [14, 13, 13]


def test_a_decoder_is_read_as_a_matrix_only_if_it_is_one():
    v, b = torch.randn(16, 2), torch.randn(16)
    found = decoder_matrix(FakeRun(Affine(v, b), latent_dim=2))
    assert torch.allclose(found[0].float(), v, atol=1e-5)
    assert torch.allclose(found[1].float(), b)
    assert decoder_matrix(FakeRun(Bent(v, b), latent_dim=2)) is None
    with pytest.raises(UserError, match="some-run has no figure 'pca-plane': its decoder is not linear"):
        pca_plane(FakeRun(Bent(v, b), latent_dim=2))
    with pytest.raises(UserError, match="two numbers or more"):
        pca_plane(FakeRun(Affine(v[:, :1], b), latent_dim=1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_toy_finds_the_plane_of_pca_by_gradient_descent(seed):
    found = toy(seed)
    assert principal_angles(found.v, found.components).max() < 1
    residual = found.points - found.points @ found.components @ found.components.T
    assert np.square(residual).sum(1).mean() < 0.03  # the noise off the plane has a variance of 0.0225
    back = found.codes @ found.v.T
    assert np.square(found.points - back).sum() < 1.05 * np.square(residual).sum()


def test_the_figure_of_the_toy_has_points_planes_and_codes():
    found = toy(0)
    figure = toy_plane(0)
    space, ours, theirs = figure.axes
    assert np.allclose(ours.collections[0].get_offsets(), found.codes)
    assert np.allclose(theirs.collections[0].get_offsets(), found.points @ found.components)
    assert [text.get_text() for text in space.get_legend().get_texts()] == ["autoencoder", "PCA"]
    angles = principal_angles(found.v, found.components)
    assert f"{angles[0]:.2f}° and {angles[1]:.2f}°" in figure.get_suptitle()
    assert not np.allclose(toy(1).points, found.points)
