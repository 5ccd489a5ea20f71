"""A linear autoencoder finds the plane of PCA: with a trained run, and with a toy of three dimensions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aelab.errors import visible
from aelab.figures.style import CLASS_COLOURS, COLOURS, new_figure, plain
from aelab.figures.tiles import visible_lines
from aelab.figures.trained import TrainedRun, described, need
from aelab.recipe import Autoencodes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.float64]

STEPS, RATE = 400, 0.05  # of the toy's gradient descent
POINTS = 2000  # of the test images at most
AFFINE = 1e-4  # the largest error of a decoder that counts as V z + b, as a share of what V z contributes


@dataclass(frozen=True)
class Aligned:
    """Points (N, D) moved onto their partners: turned, perhaps mirrored, and scaled by one factor."""

    points: Array  # (N, D), centred
    onto: Array  # (N, D), centred
    scale: float
    left: float  # what remains of the squared distances, as a share of the partners' squared distances to their mean


def procrustes(points: Array, onto: Array) -> Aligned:
    """Points (N, D) aligned with their partners (N, D) by least squares (Schönemann 1966)."""
    a, b = points - points.mean(0), onto - onto.mean(0)
    u, singular, vt = np.linalg.svd(a.T @ b)
    scale = singular.sum() / np.square(a).sum()
    moved = scale * a @ (u @ vt)
    return Aligned(moved, b, float(scale), float(np.square(moved - b).sum() / np.square(b).sum()))


def principal_angles(a: Array, b: Array) -> Array:
    """The angles (D,) in degrees, from small to large, between the spans of the columns of two matrices (P, D).

    Their cosines are exact for large angles and their sines for small ones (Björck & Golub 1973).
    """
    p, q = np.linalg.qr(a)[0], np.linalg.qr(b)[0]
    cosines = np.linalg.svd(p.T @ q, compute_uv=False)  # from large to small
    sines = np.linalg.svd(q - p @ (p.T @ q), compute_uv=False)[::-1]  # from small to large
    angles: Array = np.degrees(np.arctan2(sines, cosines))
    return angles


def code_size(run: TrainedRun) -> int:
    """The number of values in a code, with those of a class if the recipe is conditional."""
    return run.encode(torch.zeros(1, *run.image)).shape[1]


def decoder_matrix(run: TrainedRun) -> tuple[Tensor, Tensor] | None:
    """V (P, D) and b (P,) of a decoder V z + b, in float64; None if the decoder is another function."""
    size = code_size(run)
    axes = torch.cat([torch.zeros(1, size), torch.eye(size)])
    decoded = run.decode(axes).double().flatten(1)
    b, v = decoded[0], (decoded[1:] - decoded[0]).T
    z = torch.randn(16, size, generator=torch.Generator().manual_seed(0))
    error = run.decode(z).double().flatten(1) - (z.double() @ v.T + b)
    return (v, b) if error.norm() <= AFFINE * (z.double() @ v.T).norm() else None


def _without_plane(run: TrainedRun) -> str:
    if code_size(run) < 2:
        return "a plane takes a code of two numbers or more"
    return "" if decoder_matrix(run) else "its decoder is not linear"


@need(Autoencodes, unless=_without_plane)
def pca_plane(run: TrainedRun) -> "Figure":
    """The plane of a linear autoencoder beside that of PCA: the same test points, and the angles between the planes.

    W and V of an autoencoder are determined up to an invertible matrix only. So its reconstructions are written in orthonormal
    axes of its plane, and these are turned onto PCA's (Procrustes). Of more than two dimensions the first two are shown.
    """
    plane = decoder_matrix(run)
    assert plane
    data = run.data()
    x, y = data.test.batch(slice(0, POINTS))
    mean, components = run.pca(len(plane[0].T))
    axes = torch.linalg.qr(plane[0])[0]  # (P, D)
    ours = (run.reconstruct(x.cpu()).double().flatten(1) - plane[1]) @ axes  # (N, D)
    theirs = (x.cpu().double().flatten(1) - mean) @ components.T  # (N, D)
    angles = principal_angles(axes.numpy(), components.T.numpy())
    aligned = procrustes(ours.numpy(), theirs.numpy())
    return plane_figure(aligned, y.cpu().numpy(), data.classes, angles, described(run))


@plain
def plane_figure(
    aligned: Aligned, labels: NDArray[np.int64], classes: Sequence[str], angles: Sequence[float] | Array, what: str
) -> "Figure":
    """Aligned points by class (N,), -1 for none, with the principal angles (D,) in degrees between the two planes."""
    wide, high = np.ptp(aligned.onto[:, :2], axis=0)
    figure = new_figure(height=1.6 + 4.4 * min(1.5, max(0.4, high / wide)))
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, points, name in ((left, aligned.points, "linear autoencoder, aligned"), (right, aligned.onto, "PCA")):
        for label in np.unique(labels):
            chosen = points[labels == label]
            colour = CLASS_COLOURS[label % len(CLASS_COLOURS)] if label >= 0 else "0.4"
            named = visible(classes[label]) if 0 <= label < len(classes) else None
            axes.scatter(chosen[:, 0], chosen[:, 1], s=14, color=colour, linewidths=0, alpha=0.8, label=named)
        axes.set_title(name, fontsize=11)
        axes.set_aspect("equal")
        axes.set_xlabel("first direction", fontsize=10)
        axes.grid(alpha=0.3)
    left.set_ylabel("second direction", fontsize=10)
    handles, names = left.get_legend_handles_labels()
    if names:
        figure.legend(handles, names, loc="outside right center", fontsize=9, markerscale=2.5)
    found = [f"{angle:.2f}°" for angle in angles]
    between = " and ".join(found) if len(found) == 2 else f"{found[0]} to {found[-1]} ({len(found)} of them)"
    figure.suptitle(
        visible_lines(
            f"{what}: {len(labels):,} test images in its plane and in PCA's\n"
            f"principal angles between the planes: {between}\n"
            f"aligned by a rotation or reflection and one scale, {aligned.scale:.3f}; "
            f"{100 * aligned.left:.2g} % of the variance is left"
        ),
        fontsize=12,
    )
    return figure


@dataclass(frozen=True)
class Toy:
    """Points near a plane in three dimensions, and the two planes that were found; each through the mean of the points."""

    points: Array  # (N, 3), centred
    v: Array  # (3, 2), the decoder of the autoencoder
    codes: Array  # (N, 2), of the autoencoder
    components: Array  # (3, 2), of PCA


def toy(seed: int = 0, n: int = 300) -> Toy:
    """A linear autoencoder from 3-D to 2-D, trained on n points near a plane, and the PCA of the points."""
    draw = torch.Generator().manual_seed(seed)
    flat = 2 * torch.rand(n, 2, generator=draw) - 1
    near = torch.cat([flat * torch.tensor([2.0, 1.2]), 0.15 * torch.randn(n, 1, generator=draw)], 1)
    tilted = torch.linalg.qr(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0.6, 0.4, 1]]))[0]  # two directions and the normal
    x = near @ tilted.T
    x = x - x.mean(0)  # (N, 3)
    w = (0.3 * torch.randn(2, 3, generator=draw)).requires_grad_()
    v = (0.3 * torch.randn(3, 2, generator=draw)).requires_grad_()
    for _ in range(STEPS):
        loss = (x - x @ w.T @ v.T).square().sum(1).mean()  # z = W x, x^ = V z
        w_grad, v_grad = torch.autograd.grad(loss, (w, v))
        with torch.no_grad():
            w -= RATE * w_grad
            v -= RATE * v_grad
    components = torch.linalg.svd(x.double(), full_matrices=False).Vh[:2].T
    codes = (x @ w.T).detach().double()
    return Toy(x.double().numpy(), v.detach().double().numpy(), codes.numpy(), components.numpy())


def toy_plane(seed: int = 0) -> "Figure":
    """From 3-D to 2-D: points near a plane, the planes of a linear autoencoder and of PCA through them, and the codes."""
    return toy_figure(toy(seed))


@plain
def toy_figure(found: Toy) -> "Figure":
    """The points in space with both planes, and beside them the codes of the autoencoder and of PCA."""
    figure = new_figure(height=5.2)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.6, 1))
    space: Any = figure.add_subplot(grid[:, 0], projection="3d")
    scores = found.points @ found.components  # (N, 2)
    shade = scores[:, 0]  # a point has the same colour everywhere
    look: dict[str, Any] = {"c": shade, "cmap": "viridis", "s": 14}
    space.scatter(*found.points.T, depthshade=False, **look)
    steps = np.linspace(-1.1, 1.1, 7)
    across = np.stack(np.meshgrid(*np.outer(np.abs(scores).max(0), steps)), -1) @ found.components.T  # (7, 7, 3)
    basis = np.linalg.qr(found.v)[0]
    sheet = across @ basis @ basis.T  # the same points, projected onto the plane of the autoencoder
    space.plot_surface(*np.moveaxis(sheet, 2, 0), color=COLOURS[1], alpha=0.3, shade=False, label="autoencoder")
    space.plot_wireframe(*np.moveaxis(across, 2, 0), color=COLOURS[0], linewidth=1, label="PCA")
    space.set(xlabel="x₁", ylabel="x₂", zlabel="x₃")
    space.set_box_aspect(np.ptp(across, (0, 1)), zoom=1.1)  # one scale for all axes
    space.view_init(elev=25, azim=-70)
    space.locator_params(nbins=5)
    space.legend(loc="upper left", fontsize=10)
    for row, (name, codes) in enumerate((("autoencoder: z = W x", found.codes), ("PCA", scores))):
        axes = figure.add_subplot(grid[row, 1])
        axes.scatter(codes[:, 0], codes[:, 1], **look)
        axes.set_title(f"codes, {name}", fontsize=11)
        axes.set_aspect("equal", adjustable="datalim")
        axes.set(xlabel="z₁", ylabel="z₂")
        axes.grid(alpha=0.3)
    angles = principal_angles(found.v, found.components)
    figure.suptitle(
        f"{len(found.points)} points near a plane in 3-D: PCA, and a linear autoencoder with a code of 2 "
        f"after {STEPS} steps of gradient descent\n"
        f"principal angles between the planes: {angles[0]:.2f}° and {angles[1]:.2f}°; the axes in the plane are free",
        fontsize=12,
    )
    return figure
