"""Points in the plane as data: 8 Gaussians on a ring, 25 on a grid. Each Gaussian is a mode, and a class.

A point is an image of 1 x 2 pixels, whose first value is x, to the right, and whose second is y, upwards. So everything that
takes images takes points. As bytes, coordinates have steps of 1/255: a fifth of the standard deviation of a mode, which adds
0.2 % to it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from aelab.data.catalog import Raw
from aelab.data.dataset import Split

POINTS = 10_000
SD = 0.02  # of a mode, in each direction; the unit square is the plane
RADIUS = 0.35  # of the ring: two neighbours are 13 standard deviations apart
FARTHEST = 3  # standard deviations from a mode, within which a point belongs to it: 98.9 % of its own points
LEAST_SHARE = 0.01  # of the samples: a mode with fewer is lost


def ring() -> Raw:
    """Points of 8 Gaussians on a ring, equally many of each."""
    angles = [2 * math.pi * k / 8 for k in range(8)]
    return _around([(0.5 + RADIUS * math.cos(angle), 0.5 + RADIUS * math.sin(angle)) for angle in angles])


def grid() -> Raw:
    """Points of 25 Gaussians on a grid of 5 x 5, equally many of each."""
    return _around([(0.1 + 0.2 * column, 0.1 + 0.2 * row) for row in range(5) for column in range(5)])


def _around(centres: list[tuple[float, float]]) -> Raw:
    """POINTS points, equally many around each centre, which is their class."""
    normal = np.random.RandomState(0).standard_normal((POINTS, 2))  # its numbers are the same in every version of numpy
    labels = torch.arange(POINTS) % len(centres)
    points = torch.tensor(centres, dtype=torch.float64)[labels] + SD * torch.from_numpy(normal)
    pixels = (255 * points).round().clamp(0, 255).to(torch.uint8).reshape(POINTS, 1, 1, 2)
    return Raw((pixels, labels), None, tuple(f"mode {k + 1}" for k in range(len(centres))), "made by aelab")


@dataclass(frozen=True)
class Modes:
    """The modes of points: their centres (K, 2), and the standard deviation around them in each direction."""

    centres: Tensor
    sd: float

    def of(self, points: Tensor) -> Tensor:
        """The mode (N,) of each of the points (N, 2): the nearest one, -1 if it is farther than FARTHEST sd."""
        distance, nearest = torch.cdist(points, self.centres).min(1)
        return torch.where(distance <= FARTHEST * self.sd, nearest, -1)

    def shares(self, points: Tensor) -> Tensor:
        """The share (K,) of points (N, 2) that belongs to each mode."""
        modes = self.of(points)
        return torch.bincount(modes[modes >= 0], minlength=len(self.centres)).double() / len(points)

    def found(self, points: Tensor) -> Tensor:
        """Whether each mode (K,) has at least LEAST_SHARE of the points (N, 2)."""
        return self.shares(points) >= LEAST_SHARE

    def metrics(self, points: Tensor) -> dict[str, float]:
        """The number of modes that points (N, 2) cover, and the percentage of them that is near a mode."""
        return {"modes": float(self.found(points).sum()), "near_mode": 100 * float(self.shares(points).sum())}


def modes_of(train: Split) -> Modes:
    """The modes of labelled points: the mean of each class, and the standard deviation around these means."""
    x, y = train.batch(slice(None))
    points, (classes, labels) = x.flatten(1).cpu(), torch.unique(y.cpu(), return_inverse=True)
    centres = torch.stack([points[labels == k].mean(0) for k in range(len(classes))])
    return Modes(centres, float((points - centres[labels]).square().mean().sqrt()))
