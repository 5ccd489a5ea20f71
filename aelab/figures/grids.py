"""Grids of images as uint8 arrays (H, W, 3): samples, reconstructions, interpolations."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor

from aelab.errors import UserError
from aelab.recipe import Autoencodes, Completes, Decodes

Picture = NDArray[np.uint8]
TILE = 28  # pixels: smaller images are enlarged by a whole factor to at least this
GAP = 2  # pixels between images
LEAST_SIDE = 800  # pixels of the longer side of a picture in a file
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
    """Images (N, C, H, W) in [0, 1] in rows of `columns`, on a grey background."""
    tiles = images.detach().float().cpu().clamp(0, 1)
    scale = max(1, -(-TILE // min(tiles.shape[2:])))
    tiles = (tiles * 255).round().to(torch.uint8).expand(-1, 3, -1, -1)
    tiles = tiles.repeat_interleave(scale, 2).repeat_interleave(scale, 3)
    n, _, height, width = tiles.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    sheet = torch.full((3, rows * (height + GAP) + GAP, columns * (width + GAP) + GAP), 128, dtype=torch.uint8)
    for k, tile in enumerate(tiles):
        top, left = (k // columns) * (height + GAP) + GAP, (k % columns) * (width + GAP) + GAP
        sheet[:, top : top + height, left : left + width] = tile
    return np.ascontiguousarray(sheet.permute(1, 2, 0).numpy())


def enlarged(picture: Picture) -> Picture:
    """A picture to look at by itself: enlarged by a whole factor, without smoothing, if it has less than LEAST_SIDE pixels."""
    factor = max(1, -(-LEAST_SIDE // max(picture.shape[:2])))
    return picture.repeat(factor, 0).repeat(factor, 1)


def write(path: Path, picture: Picture) -> None:
    """Writes an enlarged picture to a file; its suffix sets the format. Raises UserError if it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(enlarged(picture)).save(path)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot write {path}: {error}", code=2) from error


def pairs(above: Tensor, below: Tensor, columns: int = 8) -> Picture:
    """Rows of images (N, C, H, W); below each row the row of their partners."""
    columns = min(columns, len(above))
    blank = above.new_full((-len(above) % columns, *above.shape[1:]), 128 / 255)  # fills the last row
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
    halves[:, :, rows:] = 128 / 255
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


def walks(recipe: Decodes, starts: Tensor, ends: Tensor, steps: int, path: str) -> Picture:
    """One row of `steps` images along the path between each pair of codes (N, D), both ends included."""
    t = torch.linspace(0, 1, steps, device=starts.device)
    codes = [PATHS[path](a, b, t) for a, b in zip(starts, ends, strict=True)]
    return grid(recipe.decode(torch.cat(codes)), steps)
