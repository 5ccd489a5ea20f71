"""Random changes of the training images that leave what they show as it is. They are drawn anew whenever an image is seen.

All draws come from torch's global random state, which a checkpoint holds, so a resumed training sees the same images.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

LARGEST_SHIFT = 8  # an eighth of a side
SMALLEST_WINDOW = 0.8  # of a side


def flip(x: Tensor) -> Tensor:
    """Images x (B, C, H, W), each mirrored left to right with probability 1/2."""
    mirrored = torch.rand(len(x), device=x.device) < 0.5
    return torch.where(mirrored[:, None, None, None], x.flip(3), x)


def shift(x: Tensor) -> Tensor:
    """Images x (B, C, H, W), each moved by whole pixels, up to an eighth of a side each way; pixels at the edge are repeated."""
    rows, columns = (_whole(x, side // LARGEST_SHIFT) + torch.arange(side, device=x.device) for side in x.shape[2:])
    return _sampled(x, rows, columns)


def crop(x: Tensor) -> Tensor:
    """A random window of each image x (B, C, H, W), 80 to 100 % of either side, enlarged to (H, W) by bilinear interpolation."""
    rows, columns = (_window(x, side) for side in x.shape[2:])
    return _sampled(x, rows, columns)


KINDS: dict[str, Callable[[Tensor], Tensor]] = {"flip": flip, "shift": shift, "crop": crop}


def kinds(names: str) -> tuple[str, ...]:
    """The kinds of augmentation in a list with commas, in the order in which they are applied. Raises ValueError for others."""
    typed = [name.strip() for name in names.split(",")]
    for name in typed:
        if name not in KINDS:
            raise ValueError(f"the augmentations are {', '.join(KINDS)}")
    return tuple(name for name in KINDS if name in typed)


def in_order(names: str) -> str:
    """The same list in the order in which the kinds are applied. Raises ValueError for others."""
    return ",".join(kinds(names))


def augment(x: Tensor, names: Iterable[str]) -> Tensor:
    """Images x (B, C, H, W) after the augmentations of these names."""
    for name in names:
        x = KINDS[name](x)
    return x


def _whole(x: Tensor, most: int) -> Tensor:
    """A whole number between -most and most for each image, (B, 1)."""
    return torch.randint(-most, most + 1, (len(x), 1), device=x.device)


def _window(x: Tensor, side: int) -> Tensor:
    """Positions (B, side), in pixels, at which a random window of a side is sampled."""
    share = SMALLEST_WINDOW + (1 - SMALLEST_WINDOW) * torch.rand(len(x), 1, device=x.device)  # of the side
    start = side * (1 - share) * torch.rand_like(share)
    return start + share * (torch.arange(side, device=x.device) + 0.5) - 0.5


def _sampled(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Images x (B, C, H, W) at rows (B, H) and columns (B, W), linear between pixels, constant beyond the edge."""
    return _sampled_rows(_sampled_rows(x, rows).transpose(2, 3), columns).transpose(2, 3)


def _sampled_rows(x: Tensor, rows: Tensor) -> Tensor:
    at = rows.clamp(0, x.shape[2] - 1)[:, None, :, None]  # (B, 1, H, 1)
    above = at.floor().long()
    below = (above + 1).clamp(max=x.shape[2] - 1)
    first, second = (x.gather(2, index.expand_as(x)) for index in (above, below))
    return first.lerp(second, (at - above).to(x.dtype).expand_as(x))
