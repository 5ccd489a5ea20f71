"""Grids of images as uint8 arrays (H, W, 3): samples, reconstructions, interpolations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from aelab.errors import UserError
from aelab.recipe import POINT, Autoencodes, Completes, ImageShape

Picture = NDArray[np.uint8]
TILE = 28  # pixels: smaller images are enlarged by a whole factor to at least this
GAP = 2  # pixels between images
LEAST_SIDE = 800  # pixels of the longer side of a picture in a file
GREY = 128  # of the background
PLANE = 256  # pixels a side of a picture of points: MLflow shows none larger
BLUE, VERMILION = (0, 114, 178), (213, 94, 0)  # of points; Okabe & Ito 2008
PALE_BLUE, PALE_VERMILION = (127, 179, 213), (232, 166, 124)  # behind them
WRITTEN = (
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".ppm",
    ".pdf",
)  # endings that `write` takes


def grid(images: Tensor, columns: int = 8) -> Picture:
    """Images (N, C, H, W) in [0, 1] in rows of `columns`, on a grey background. Points of the plane are drawn as dots."""
    if tuple(images.shape[1:]) == POINT:
        return plane_picture(images.flatten(1), BLUE)
    tiles = images.detach().float().cpu().clamp(0, 1)
    scale = max(1, -(-TILE // min(tiles.shape[2:])))
    tiles = (tiles * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    tiles = tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, _, height, width = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), GREY, dtype=torch.uint8)
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + GAP) + GAP, (k % columns) * (width + GAP) + GAP
        sheet[:, top : top + height, left : left + width] = tile
    return np.ascontiguousarray(sheet.permute(1, 2, 0).numpy())


def enlarged(picture: Picture) -> Picture:
    """A picture to look at by itself: enlarged by a whole factor, without smoothing, if it has less than LEAST_SIDE pixels."""
    factor = max(1, -(-LEAST_SIDE // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def tiles(picture: Picture, image: ImageShape) -> Tensor:
    """The images (N, C, H, W) in [0, 1] of a picture that `grid` made; where its last row ends early they are grey.

    Raises UserError if it is no grid of images (C, H, W).
    """
    channels, height, width = image
    scale = max(1, -(-TILE // min(height, width)))
    high, wide = height * scale + GAP, width * scale + GAP
    rows, columns = (picture.shape[0] - GAP) // high, (picture.shape[1] - GAP) // wide
    if picture.shape[:2] != (rows * high + GAP, columns * wide + GAP):
        raise UserError(
            f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels is no grid of these images.", code=2
        )
    cells = torch.from_numpy(picture[GAP:, GAP:].copy()).reshape(rows, high, columns, wide, 3)
    cells = cells[:, : high - GAP : scale, :, : wide - GAP : scale].permute(0, 2, 4, 1, 3)  # rows, columns, 3, H, W
    return cells.flatten(0, 1)[:, :channels].float() / 255


def plane_picture(
    points: Tensor, colour: tuple[int, int, int], below: Tensor | None = None, d: Tensor | None = None
) -> Picture:
    """Points (N, 2) of the unit square as dots of a colour, over the points `below` in blue; x is to the right, y upwards.

    `d` (S, S) is the discriminator on a grid over the square, row by row from below: the ground is vermilion where it is 0,
    white where it is 1/2, and blue where it is 1; a square root lets small differences from 1/2 be seen.
    """
    sheet = np.full((PLANE, PLANE, 3), 255, np.uint8)
    if d is not None:
        nearest = np.linspace(0, len(d) - 1, PLANE).round().astype(int)
        side = 2 * d.float().cpu().numpy()[np.ix_(nearest[::-1], nearest)][..., None] - 1  # from -1 to 1
        towards = np.where(side < 0, np.array(PALE_VERMILION), np.array(PALE_BLUE))
        sheet[:] = (255 + np.sqrt(np.abs(side)) * (towards - 255)).round()
    for some, of in ((below, BLUE), (points, colour)):
        if some is not None:
            x, y = (some.detach().float().cpu().clamp(0, 1) * (PLANE - 1)).round().long().T.numpy()
            for right, down in ((0, 0), (0, 1), (1, 0), (1, 1)):
                sheet[np.minimum(PLANE - 1 - y + down, PLANE - 1), np.minimum(x + right, PLANE - 1)] = of
    return sheet


def write(path: Path, picture: Picture) -> None:
    """Writes an enlarged picture to a file; its suffix sets the format. Raises UserError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(enlarged(picture)).save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}", code=2) from error


def pairs(above: Tensor, below: Tensor, columns: int = 8) -> Picture:
    """Rows of images (N, C, H, W); below each row the row of their partners. Of points, dots: the partners in vermilion."""
    if tuple(above.shape[1:]) == POINT:
        return plane_picture(below.flatten(1), VERMILION, above.flatten(1))
    columns = min(columns, len(above))
    blank = above.new_full((-len(above) % columns, *above.shape[1:]), GREY / 255)  # fills the last row
    rows = [torch.split(torch.cat([part, blank]), columns) for part in (above, below)]
    return grid(torch.cat([row for pair in zip(*rows, strict=True) for row in pair]), columns)


def reconstruction_grid(recipe: Autoencodes, x: Tensor, columns: int = 8) -> Picture:
    """Rows of inputs x (N, C, H, W); below each row the row of their reconstructions."""
    return pairs(x, recipe.decode(recipe.encode(x)), columns)


def filter_grid(weights: Tensor, columns: int = 8) -> Picture:
    """Rows of filters (N, C, H, W): 0 is grey, and the largest weight of each, by its absolute value, black or white."""
    largest = weights.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    return grid(0.5 + weights / largest / 2, columns)


def completion_grid(recipe: Completes, x: Tensor, codes: Sequence[Tensor]) -> Picture:
    """A row of images x (N, C, H, W), a row of their upper halves, and for each of the codes (N, D) a row of completions."""
    x = recipe.observe(x)
    rows = x.shape[2] // 2
    halves = x.clone()
    halves[:, :, rows:] = GREY / 255
    return grid(torch.cat([x, halves, *(recipe.complete(x, rows, z) for z in codes)]), len(x))


def linear(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points (T, D) on the straight line from code a (D,) to code b (D,), t (T,) from 0 to 1."""
    return torch.lerp(a, b, t[:, None])


def spherical(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points (T, D) on the great arc from code a (D,) to code b (D,), t (T,) from 0 to 1 (White 2016).

    Their length changes linearly from |a| to |b|. Under a normal prior in many dimensions codes lie near a sphere, and the
    straight line leaves it. Parallel or opposite codes have no unique great arc; they get the straight line.
    """
    length_a, length_b = a.norm(), b.norm()
    cosine = (a @ b / (length_a * length_b)).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if not angle.sin() > 1e-4:  # also where a code is zero
        return linear(a, b, t)
    t = t[:, None]
    direction: Tensor = (((1 - t) * angle).sin() * a / length_a + (t * angle).sin() * b / length_b) / angle.sin()
    return direction * torch.lerp(length_a, length_b, t)


PATHS = {"linear": linear, "spherical": spherical}
