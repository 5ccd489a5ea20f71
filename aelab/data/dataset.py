"""A data set: its images as uint8 tensors, split, and moved to the device.

Batches hold floats in [0, 1]. The training, validation and test images are disjoint, and depend on the data and the split
seed only. An official test set stays the test set.
"""

import hashlib
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from aelab.data.catalog import Raw
from aelab.errors import UserError
from aelab.recipe import POINT, ImageShape

CPU = torch.device("cpu")
MIN_IMAGES = 5
RESIDENT_SHARE = 0.5  # of the device's free memory: a larger data set is streamed from the host


@dataclass(frozen=True)
class Split:
    """Images (N, C, H, W) as uint8 and labels (N,), -1 where there is none; on the device, or on the host if they do not fit."""

    images: Tensor
    labels: Tensor
    device: torch.device = CPU

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, index: Tensor | slice) -> tuple[Tensor, Tensor]:
        """x (B, C, H, W) in [0, 1] and y (B,), on the device."""
        x, y = self.images[index], self.labels[index]
        return x.to(self.device, non_blocking=True).float() / 255, y.to(self.device, non_blocking=True)

    def blocks(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The whole split in order, `size` images at a time, as `batch` gives them."""
        for start in range(0, len(self), size):
            yield self.batch(slice(start, start + size))

    def showcase(self, n: int) -> Tensor:
        """n images (n, C, H, W) to look at, on the device: one of each class in turn or, without labels, evenly spaced."""
        return self.examples(n)[0]

    def examples(self, n: int) -> tuple[Tensor, Tensor]:
        """The images (n, C, H, W) of `showcase`, and their labels (n,)."""
        n = min(n, len(self))
        if (self.labels < 0).any():
            chosen = torch.linspace(0, len(self) - 1, n).long()
        else:
            members = [torch.nonzero(self.labels == label).flatten().tolist() for label in torch.unique(self.labels)]
            turns = itertools.chain.from_iterable(itertools.zip_longest(*members))
            chosen = torch.tensor([k for k in turns if k is not None][:n])
        return self.batch(chosen.to(self.images.device))

    def pairs(self, n: int) -> tuple[Tensor, Tensor]:
        """n random pairs of images as two indices (n,). The images of a pair are of different classes, if there are classes."""
        starts = torch.randint(len(self), (n,))
        labels = self.labels.cpu()
        others = [torch.nonzero((labels != labels[k]) | (labels[k] < 0)).flatten() for k in starts]
        ends = torch.stack(
            [some[torch.randint(len(some), ())] if len(some) else k for some, k in zip(others, starts, strict=True)]
        )
        return starts.to(self.images.device), ends.to(self.images.device)

    def shuffled(self, seed: int, *position: int, length: int | None = None) -> Tensor:
        """A random order of the images (N,), a function of the seed and the position (phase, epoch) only.

        With a `length`, that many indices: one order after the other.
        """
        state = np.random.SeedSequence((seed, *position)).generate_state(1, np.uint64)[0]
        generator = torch.Generator().manual_seed(int(state >> np.uint64(1)))
        length = len(self) if length is None else length
        orders = [torch.randperm(len(self), generator=generator) for _ in range(math.ceil(length / len(self)))]
        return torch.cat(orders)[:length].to(self.images.device)

    def labelled(self, n: int, seed: int) -> "Split":
        """n random labelled images, equally many of each class where possible. The seed alone decides which.

        Raises UserError if n is larger than the number of labelled images, or smaller than the number of classes.
        """
        labels = self.labels.cpu().numpy()
        classes, counts = np.unique(labels[labels >= 0], return_counts=True)
        if not len(classes) <= n <= counts.sum():
            raise UserError(
                f"--labels {n}: between {len(classes)} (one a class) and {counts.sum():,} (all labelled training images).",
                code=2,
            )
        generator = np.random.default_rng(seed)
        members = [generator.permutation(np.flatnonzero(labels == label)) for label in classes]
        turns = itertools.chain.from_iterable(itertools.zip_longest(*members))
        chosen = torch.tensor(list(itertools.islice((k for k in turns if k is not None), n))).to(self.images.device)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def to(self, device: torch.device) -> "Split":
        """This split on `device` if it fits into half of its free memory; else in pinned memory, streamed by batch."""
        if device.type == "cpu":
            return self
        if device.type == "cuda" and self.images.nbytes > RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]:
            return Split(self.images.pin_memory(), self.labels.pin_memory(), device)
        return Split(self.images.to(device), self.labels.to(device), device)


@dataclass(frozen=True)
class Dataset:
    """A data set, split. `fingerprint` is the SHA-256 of the pixels and labels of all splits."""

    name: str
    place: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    split_seed: int
    fingerprint: str
    note: str = ""  # for the user, for instance that a smaller data set is used instead

    @property
    def image(self) -> ImageShape:
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def digest(self) -> str:
        """The beginning of the fingerprint, by which MLflow knows the data."""
        return self.fingerprint[:16]

    @property
    def of_points(self) -> bool:
        """Whether an image is a point in the plane."""
        return self.image == POINT

    def to(self, device: torch.device) -> "Dataset":
        train, val, test = (split.to(device) for split in (self.train, self.val, self.test))
        return replace(self, train=train, val=val, test=test)


def split(name: str, raw: Raw, seed: int, note: str) -> Dataset:
    """Splits a source. Without test images a fifth of the images is held out for the test, then a twelfth for validation.

    Raises UserError for fewer than MIN_IMAGES images.
    """
    generator = np.random.default_rng(seed)
    images, labels = raw.train
    if len(images) < MIN_IMAGES:
        raise UserError(
            f"{len(images)} image{'s are' if len(images) != 1 else ' is'} too few to train on and to set some apart; "
            f"at least {MIN_IMAGES} are needed.",
            code=2,
        )
    rest, test, val = torch.arange(len(images)), raw.test, raw.val
    if test is None:
        rest, held = _hold_out(rest, labels, 1 / 5, generator)
        test = images[held], labels[held]
    if val is None:
        rest, held = _hold_out(rest, labels, 1 / 12, generator)
        val = images[held], labels[held]
    train = (images[rest], labels[rest]) if len(rest) < len(images) else raw.train  # at most one copy
    digest = hashlib.sha256(repr([tuple(x.shape) for x, _ in (train, val, test)]).encode())
    for pair in (train, val, test):
        for tensor in pair:
            digest.update(tensor.contiguous().numpy().data)  # the buffer itself, not a copy
    return Dataset(
        name, raw.place, raw.classes, Split(*train), Split(*val), Split(*test), seed, digest.hexdigest(), note
    )


def _hold_out(chosen: Tensor, labels: Tensor, share: float, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Holds out a random `share` of each class from the `chosen` indices; returns the rest and the share, both shuffled."""
    own = labels[chosen].numpy()
    classes, counts = np.unique(own, return_counts=True)
    exact = share * counts
    quota = np.floor(exact).astype(int)
    missing = max(1, round(share * len(own))) - quota.sum()
    quota[np.argsort(quota - exact, kind="stable")[:missing]] += 1  # the largest remainders make up the rest
    members = [generator.permutation(np.flatnonzero(own == label)) for label in classes]
    held = np.concatenate([some[:n] for some, n in zip(members, quota, strict=True)])
    rest = np.setdiff1d(np.arange(len(own)), held)
    first, second = (torch.from_numpy(generator.permutation(part)) for part in (rest, held))
    return chosen[first], chosen[second]
