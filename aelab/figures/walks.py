"""From one code to another: interpolations, and the difference of two classes added to a code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aelab.figures.codes import evenly, prior_codes
from aelab.figures.grids import PATHS, linear
from aelab.figures.strips import Strip, mean_confidence, strips, verdict_texts
from aelab.figures.trained import TrainedRun, described, need, without_classes
from aelab.recipe import Autoencodes, Decodes, Generates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS, STEPS = 4, 9
MEANT = 5000  # training images at most, whose codes give the mean of a class
EXAMPLES = 3  # test images in a row of the arithmetic


def between_nothing(run: TrainedRun) -> str:
    """A reason for `need`: there are no two codes, or nothing between them."""
    if not run.recipe.interpolates:
        return f"the images between two codes of {run.info.recipe} mean nothing"
    return "" if isinstance(run.recipe, Autoencodes | Generates) else f"{run.info.recipe} has neither encoder nor prior"


@need(Decodes, unless=between_nothing)
def interpolation(run: TrainedRun, images: Sequence[tuple[int, int]] = ()) -> "Figure":
    """Strips from one test image to another, straight and on the great arc, with the classifier's verdict on each image.

    `images` are pairs of numbers of test images; by default the pairs are of different classes. The ends of a strip are
    reconstructions, and the test images themselves stand outside. A recipe without an encoder goes between draws of its prior.
    """
    data, encodes = run.data(), isinstance(run.recipe, Autoencodes)
    if encodes:
        x = data.test.batch(torch.tensor(images).flatten())[0] if images else data.test.showcase(2 * PAIRS)
        codes = run.encode(x)
    else:
        codes = prior_codes(run, 2 * PAIRS)
    t = torch.linspace(0, 1, STEPS)
    rows, sure = [], dict.fromkeys(PATHS, 0.0)
    pairs = len(codes) // 2
    for k in range(pairs):
        for kind in PATHS:
            strip = run.decode(path_of(run, codes[2 * k], codes[2 * k + 1], t, kind))
            if encodes:
                strip = torch.cat([x[2 * k : 2 * k + 1].cpu(), strip, x[2 * k + 1 : 2 * k + 2].cpu()])
            texts = []
            if run.classes > 1:
                seen = run.verdicts(strip)
                texts = verdict_texts(seen, data.classes)
                sure[kind] += mean_confidence(seen[2:-2] if encodes else seen[1:-1]) / pairs
            rows.append(Strip(kind, strip, texts))
    what = "test images" if encodes else "draws of the prior"
    title = f"{described(run)}: interpolation between {what}"
    if run.classes > 1:
        both = ", ".join(f"{kind} {100 * value:.0f} %" for kind, value in sure.items())
        title += f"\nbelow: the classifier's verdict and its probability; mean between the ends: {both}"
    parts = [f"{value:.2g}" for value in t.tolist()]
    heads = ["test image", *parts, "test image"] if encodes else parts
    return strips(rows, title, heads, dict.fromkeys((1, STEPS + 1), "") if encodes else {})


def path_of(run: TrainedRun, a: Tensor, b: Tensor, t: Tensor, kind: str) -> Tensor:
    """Codes (T, D) from code a (D,) to code b (D,), t (T,) from 0 to 1; the class at the end of a code goes along a line."""
    size = len(a) - (run.classes if run.conditional else 0)
    return torch.cat([PATHS[kind](a[:size], b[:size], t), linear(a[size:], b[size:], t)], 1)


@need(Autoencodes, unless=without_classes)
def class_arithmetic(run: TrainedRun, pairs: Sequence[tuple[int, int]] = ()) -> "Figure":
    """Images of class B with the difference of two mean codes added, mean of A - mean of B, and the classifier's verdict.

    `pairs` are the numbers (A, B) of classes; by default (1, 0), (3, 2) and so on, at most five.
    """
    data = run.data()
    pairs = pairs or [(b + 1, b) for b in range(0, min(run.classes, 10) - 1, 2)]
    known = data.train.batch(evenly(len(data.train), MEANT).to(data.train.images.device))
    means = class_means(run.encode(known[0]), known[1].cpu(), run.classes)
    labels, rows, hits, tried = data.test.labels, [], 0, 0
    for a, b in pairs:
        x = data.test.batch(torch.nonzero(labels == b).flatten())[0]
        moved = run.decode(run.encode(x) + means[a] - means[b])  # (N, C, H, W)
        hits += int((run.verdicts(moved).argmax(1) == a).sum())
        tried += len(x)
        beside = torch.stack([x[:EXAMPLES].cpu(), moved[:EXAMPLES]], 1).flatten(0, 1)
        images = torch.cat([run.decode(means[[a, b]]), beside])
        first, second = (data.classes[k][:10] for k in (a, b))
        formula = f"{first} − {second}\nadded to {second}" if len(first + second) < 6 else f"{first}\n− {second}"
        rows.append(Strip(formula, images, verdict_texts(run.verdicts(images), data.classes)))
    title = (
        f"{described(run)}: test image of B + mean code of A − mean code of B\n"
        f"the classifier sees A in {100 * hits / tried:.0f} % of {tried:,} results; below: its verdict and probability"
    )
    examples = (len(rows[0].images) - 2) // 2
    heads = ["mean of A", "mean of B", *["image of B", "+ A − B"] * examples]
    signs = {1: "−", **{k: "→" if k % 2 else "" for k in range(2, 2 + 2 * examples)}}
    return strips(rows, title, heads, signs)


def class_means(codes: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean code of each class, (K, D), of codes (N, D) and labels (N,)."""
    return torch.stack([codes[labels == k].mean(0) for k in range(classes)])
