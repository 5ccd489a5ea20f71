"""Rows of images placed by the inch: many small images, with gaps and signs between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from aelab.errors import visible
from aelab.figures.style import WIDTH, new_figure, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN, LINE = 0.1, 0.17  # inches at the edges, and of a line of text
SIGN = 0.28  # inches of the gap before an image that has a sign
GAP = 0.05  # inches between images
LABELS = 1.05  # inches of the labels of rows


@dataclass(frozen=True)
class Strip:
    """A row: its label, its images (N, C, H, W) in [0, 1], and a text below each. A text may have several lines."""

    label: str
    images: Tensor
    texts: Sequence[str] = ()


@plain
def strips(
    rows: Sequence[Strip], title: str, heads: Sequence[str] = (), signs: Mapping[int, str] | None = None
) -> "Figure":
    """Rows of N images each, below the `heads` of their columns; `signs` stand in the gap before their column, or "" does."""
    signs = signs or {}
    columns = len(rows[0].images)
    side = (WIDTH - 2 * MARGIN - LABELS - SIGN * len(signs)) / columns - GAP
    height = side * rows[0].images.shape[2] / rows[0].images.shape[3]
    lefts = [
        MARGIN + LABELS + k * (side + GAP) + SIGN * sum(column <= k for column in signs) + GAP / 2
        for k in range(columns)
    ]
    below = [LINE * max((text.count("\n") + 1 for text in row.texts), default=0) + 2 * GAP for row in rows]
    top = 0.15 + 0.22 * (title.count("\n") + 1)  # of the heads
    first = top + LINE * max((head.count("\n") + 1 for head in heads), default=0) + GAP
    total = first + len(rows) * height + sum(below)

    figure = new_figure(WIDTH, total)
    figure.set_layout_engine("none")  # this function places everything
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.text(WIDTH / 2, 0.1, _lines(title), ha="center", va="top", fontsize=12)
    for left, head in zip(lefts, heads, strict=False):
        axes.text(left + side / 2, first - GAP, _lines(head), ha="center", va="bottom", fontsize=9)
    y = first
    for row, space in zip(rows, below, strict=True):
        axes.text(MARGIN + LABELS - 2 * GAP, y + height / 2, _lines(row.label), ha="right", va="center", fontsize=10)
        for left, image in zip(lefts, row.images, strict=True):
            pixels = image.detach().float().cpu().clamp(0, 1).expand(3, -1, -1).permute(1, 2, 0)  # (H, W, 3)
            place = (left, left + side, y + height, y)
            axes.imshow(pixels.numpy(), extent=place, aspect="auto", interpolation="nearest")
        for left, text in zip(lefts, row.texts, strict=False):
            axes.text(left + side / 2, y + height + GAP / 2, _lines(text), ha="center", va="top", fontsize=9)
        for column, sign in signs.items():
            axes.text(lefts[column] - SIGN / 2 - GAP / 2, y + height / 2, sign, ha="center", va="center", fontsize=16)
        y += height + space
    axes.set(xlim=(0, WIDTH), ylim=(total, 0))
    return figure


def verdict_texts(probabilities: Tensor, names: Sequence[str]) -> list[str]:
    """For each image the most probable class and its probability, of the classifier's (N, K): "7: 98 %"."""
    best, which = probabilities.max(1)
    between = ": " if max(map(len, names)) <= 2 else "\n"
    return [f"{names[k]:.10}{between}{100 * p:.0f} %" for p, k in zip(best.tolist(), which.tolist(), strict=True)]


def _lines(text: str) -> str:
    """A text of several lines, each safe to draw."""
    return "\n".join(map(visible, text.split("\n")))
