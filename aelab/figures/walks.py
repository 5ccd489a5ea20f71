"""From one code to another: interpolations, and the difference of two classes added to a code."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from aelab.errors import UserError
from aelab.figures.codes import evenly, prior_codes
from aelab.figures.grids import PATHS, linear
from aelab.figures.strips import Strip, strips, verdict_texts
from aelab.figures.trained import TrainedRun, described, need, without_classes
from aelab.recipe import Autoencodes, Decodes, Generates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAIRS, STEPS = 4, 9
MEANT = 5000  # training images at most, whose codes give the mean of a class
EXAMPLES = 3  # at most so many test images in a row of the arithmetic


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
    t = torch.linspace(0, 1, STEPS)
    if encodes:
        x = data.test.batch(torch.tensor(images).flatten())[0] if images else data.test.showcase(2 * PAIRS)
        codes = run.encode(x)
    else:
        codes = prior_codes(run, 2 * PAIRS)
    pairs = list(zip(codes[::2], codes[1::2], strict=False))
    points = [path_of(run, a, b, t, kind) for a, b in pairs for kind in PATHS]
    strip = run.decode(torch.cat(points)).view(
        -1, STEPS, *data.image
    )  # (R, T, C, H, W): for each pair a row of each kind
    if encodes:
        outer = x[: 2 * len(pairs)].cpu().view(-1, 2, *data.image).repeat_interleave(len(PATHS), 0)  # (R, 2, C, H, W)
        strip = torch.cat([outer[:, :1], strip, outer[:, 1:]], 1)
    title = f"{described(run)}: interpolation between {'test images' if encodes else 'draws of the prior'}"
    texts: list[list[str]] = [[]] * len(strip)
    if run.classes > 1:
        seen = run.verdicts(strip.flatten(0, 1)).view(*strip.shape[:2], -1)  # (R, T, K)
        texts = [verdict_texts(row, data.classes) for row in seen]
        between = seen[:, 2:-2] if encodes else seen[:, 1:-1]
        sure = [f"{kind} {100 * between[k :: len(PATHS)].amax(2).mean():.0f} %" for k, kind in enumerate(PATHS)]
        title += f"\nbelow: the classifier's verdict and its probability; mean between the ends: {', '.join(sure)}"
    rows = [Strip(kind, strip[k], texts[k]) for k, kind in enumerate(list(PATHS) * len(pairs))]
    heads = ["0", *[f"{k}/{STEPS - 1}" for k in range(1, STEPS - 1)], "1"]
    if not encodes:
        return strips(rows, title, heads)
    return strips(rows, title, ["test image", *heads, "test image"], {1: "", STEPS + 1: ""})


def path_of(run: TrainedRun, a: Tensor, b: Tensor, t: Tensor, kind: str) -> Tensor:
    """Codes (T, D) from code a (D,) to code b (D,), t (T,) from 0 to 1; the class at the end of a code goes along a line."""
    size = len(a) - (run.classes if run.conditional else 0)
    return torch.cat([PATHS[kind](a[:size], b[:size], t), linear(a[size:], b[size:], t)], 1)


@need(Autoencodes, unless=without_classes)
def class_arithmetic(run: TrainedRun, pairs: Sequence[tuple[int, int]] = ()) -> "Figure":
    """Images of class B with the difference of two mean codes added, mean of A - mean of B, and the classifier's verdict.

    `pairs` are the numbers (A, B) of classes; by default (1, 0), (3, 2) and so on, at most five. A pair is left out if there
    are no test images of B, or too few training images for its mean codes. Raises UserError if none is left.
    """
    data = run.data()
    pairs = pairs or [(b + 1, b) for b in range(0, min(run.classes, 10) - 1, 2)]
    known = data.train.batch(evenly(len(data.train), MEANT).to(data.train.images.device))
    means = class_means(run.encode(known[0]), known[1].cpu(), run.classes)
    tests = [torch.nonzero(data.test.labels == k).flatten() for k in range(run.classes)]
    pairs = [(a, b) for a, b in pairs if len(tests[b]) and not means[[a, b]].isnan().any()]
    if not pairs:
        raise UserError("no two classes have the training and test images that this figure needs.", code=2)
    examples_each = min(EXAMPLES, *(len(tests[b]) for _, b in pairs))
    shown, moved = [], []  # by pair: images of its row; all results
    for a, b in pairs:
        x = data.test.batch(tests[b])[0]
        moved.append(run.decode(run.encode(x) + means[a] - means[b]))  # (N, C, H, W)
        examples = torch.stack([x.cpu(), moved[-1]], 1)[:examples_each].flatten(0, 1)
        shown.append(torch.cat([run.decode(means[[a, b]]), examples]))
    seen = torch.split(run.verdicts(torch.cat([*shown, *moved])), [len(images) for images in (*shown, *moved)])
    hits = sum(int((of.argmax(1) == a).sum()) for (a, _), of in zip(pairs, seen[len(pairs) :], strict=True))
    tried = sum(map(len, moved))
    rows = [
        Strip(formula(data.classes[a], data.classes[b]), images, verdict_texts(of, data.classes))
        for (a, b), images, of in zip(pairs, shown, seen, strict=False)
    ]
    title = (
        f"{described(run)}: test image of B + mean code of A − mean code of B\n"
        f"the classifier sees A in {100 * hits / tried:.0f} % of {tried:,} results; below: its verdict and probability"
    )
    heads = ["mean of A", "mean of B", *["image of B", "+ A − B"] * examples_each]
    signs = {1: "−", **{k: "→" if k % 2 else "" for k in range(2, 2 + 2 * examples_each)}}
    return strips(rows, title, heads, signs)


def formula(a: str, b: str) -> str:
    """The label of a row: the difference of two classes, and what it is added to."""
    a, b = a[:10], b[:10]
    return f"{a} − {b}\nadded to {b}" if len(a + b) < 6 else f"{a}\n− {b}\nadded to\n{b}"


def class_means(codes: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean code of each class, (K, D), of codes (N, D) and labels (N,); NaN for a class without any."""
    return torch.stack([codes[labels == k].mean(0) for k in range(classes)])
