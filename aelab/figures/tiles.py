"""Rows of images on a figure: enlarged without smoothing, with a label before each row and a text below each image."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from aelab.errors import UserError, visible
from aelab.figures.style import WIDTH, new_figure, plain
from aelab.recipe import POINT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABEL_WIDTH = 1.6  # inches for the labels of rows
TITLE_HEIGHT, TEXT_HEIGHT = 0.55, 0.22  # inches of a title, and of a line of text below images


def visible_lines(text: str) -> str:
    """A text of several lines, each safe to show."""
    return "\n".join(map(visible, text.split("\n")))


def need_images(images: Tensor) -> None:
    """Raises UserError for points in the plane (N, 1, 1, 2): there is nothing to see in 1 x 2 pixels."""
    if tuple(images.shape[1:]) == POINT:
        raise UserError("this figure is made of images, and these are points in the plane.", "Draw: points", code=2)


def draw_image(axes: "Axes", image: Tensor) -> None:
    """Shows an image (C, H, W) in [0, 1] without smoothing, framed, without ticks."""
    pixels = image.detach().float().cpu().clamp(0, 1).permute(1, 2, 0)  # (H, W, C)
    if pixels.shape[2] == 1:
        axes.imshow(pixels[:, :, 0].numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    else:
        axes.imshow(pixels.numpy(), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for side in axes.spines.values():
        side.set(color="0.7", linewidth=0.5)


@plain
def rows_of_images(
    rows: Mapping[str, Tensor], title: str, texts: Mapping[str, Sequence[str]] | None = None
) -> "Figure":
    """Rows of images (N, C, H, W), each under its label, and for some rows a text below each image.

    Rows may differ in length. The figure is as wide as a slide, whatever the size of an image.
    """
    texts = texts or {}
    columns = max(len(images) for images in rows.values())
    first = next(iter(rows.values()))
    need_images(first)
    side = (WIDTH - LABEL_WIDTH) / columns  # inches of an image
    height = side * first.shape[2] / first.shape[3]
    heights = [height + TEXT_HEIGHT * (label in texts) for label in rows]
    lines = title.count("\n") + 1
    figure = new_figure(WIDTH, sum(heights) + TITLE_HEIGHT * (lines + 1) / 2)
    figure.suptitle(visible_lines(title), fontsize=12)
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for row, (label, images) in zip(axes, rows.items(), strict=True):
        for k, cell in enumerate(row):
            if k >= len(images):
                cell.set_axis_off()
                continue
            draw_image(cell, images[k])
            if label in texts:
                cell.set_xlabel(visible_lines(texts[label][k]), fontsize=max(6, min(11, 11 * side)), labelpad=2)
        row[0].set_ylabel(visible_lines(label), rotation=0, ha="right", va="center", fontsize=10)
    return figure


@plain
def sheet_of_images(images: Tensor, title: str, columns: int | None = None, labels: Sequence[str] = ()) -> "Figure":
    """Images (N, C, H, W) in rows of `columns`, without gaps that matter; `labels` stand before the rows."""
    need_images(images)
    columns = columns or max(1, round(math.sqrt(len(images))))
    rows = -(-len(images) // columns)
    height, wide = images.shape[2:]
    gap = max(1, wide // 14)
    pixels = images.detach().float().cpu().clamp(0, 1).expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    sheet = np.full((rows * (height + gap) - gap, columns * (wide + gap) - gap, 3), 1.0, dtype=np.float32)
    for k, tile in enumerate(pixels):
        top, left = k // columns * (height + gap), k % columns * (wide + gap)
        sheet[top : top + height, left : left + wide] = tile
    figure = new_figure(WIDTH, WIDTH * sheet.shape[0] / sheet.shape[1] + 0.15 + 0.2 * len(title.split("\n")))
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest", aspect="equal")
    axes.set_title(visible_lines(title), fontsize=12)
    axes.set_xticks([])
    axes.set_yticks([(height + gap) * k + height / 2 for k in range(len(labels))], list(map(visible, labels)))
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    return figure
