"""Pictures of a run: samples, interpolations and reconstructions, logged to the run."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from annotated_types import Ge
from torch import Tensor
from torch.nn.functional import one_hot

from aelab.errors import UserError, checked
from aelab.evaluation import eval_mode
from aelab.figures import PATHS, Picture, grid, linear, pairs, write
from aelab.progress_bar import progress_bar
from aelab.recipe import Autoencodes, Generates
from aelab.workflows.loading import load
from aelab.workflows.run import Run

KINDS = ("linear", "spherical")  # paths from code to code


@dataclass(frozen=True)
class Drawing:
    """Images (N, C, H, W) in [0, 1], on the CPU, and the file of their picture on this machine."""

    images: Tensor = field(repr=False)
    path: Path


@checked
def sample(
    run: str | Path | Run,
    n: Annotated[int, Ge(1)] | None = None,
    *,
    label: str | int | None = None,
    seed: int = 0,
    out: Path | None = None,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> Drawing:
    """Draws n codes (64) from the prior with `seed`, and decodes them into images (n, C, H, W).

    `label` names the class that they are of, or is "all": n images (10) of each, a row a class. Their picture is logged to the
    run, and also written to the file `out`. Raises UserError if the recipe has no prior, or draws no class on request.
    """
    opened = load(run, device=device, data_dir=data_dir, tracking_uri=tracking_uri)
    if not isinstance(opened.recipe, Generates):
        can = isinstance(opened.recipe, Autoencodes)
        other = f"; this one can: aelab interpolate {shlex.quote(opened.name)}" if can else ""
        what = f"{opened.name} cannot sample: {opened.info.recipe} has no prior to draw codes from."
        raise UserError(what, f"Sample a vae or a gan{other}", code=2)
    with progress_bar("samples", 1):
        images = opened.sample(n, label=label, seed=seed)
    columns = len(images) // opened.classes if label == "all" else max(1, round(len(images) ** 0.5))
    of = "" if label is None else "-of-" + re.sub(r"\W+", "-", str(label))
    return Drawing(images, _log(opened, f"samples-{len(images)}{of}-seed{seed}", grid(images, columns), out))


@checked
def interpolate(
    run: str | Path | Run,
    *,
    path: Literal["linear", "spherical", "both"] = "both",
    vary: Literal["class", "style", "both"] = "both",
    pairs: Annotated[int, Ge(1)] = 6,
    steps: Annotated[int, Ge(2)] = 10,
    seed: int = 0,
    out: Path | None = None,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> dict[str, Drawing]:
    """Interpolates between pairs of codes in `steps` images, both ends included: (pairs * steps, C, H, W), row by row.

    `path` is "linear", the straight line, "spherical", the great arc (White 2016), or "both". The ends are the codes of
    random pairs of test images of different classes or, without an encoder, draws from the prior. With `vary` a conditional
    recipe changes one part of drawn codes only: their class, or within one class all the rest. Each picture is logged to the
    run, and also written to `out`; with "both", to NAME-linear and NAME-spherical. Raises UserError if the recipe cannot decode
    codes, or images between two of its codes mean nothing.
    """
    opened = load(run, device=device, data_dir=data_dir, tracking_uri=tracking_uri)
    both = KINDS if vary != "class" else KINDS[:1]  # a class always changes along a line
    kinds = both if path == "both" else (path,)
    with progress_bar(f"images between {pairs} pairs of codes", 1):
        walks = walk(opened, kinds, pairs, steps, seed, vary)
    drawings = {}
    for kind, images in walks.items():
        target = out.with_stem(f"{out.stem}-{kind}") if out and path == "both" else out
        picture = grid(images, steps)
        of = "" if vary == "both" else f"-of-{vary}"
        drawings[kind] = Drawing(images, _log(opened, f"interpolation-{kind}{of}-seed{seed}", picture, target))
    return drawings


def walk(run: Run, kinds: Sequence[str], pairs: int, steps: int, seed: int, vary: str = "both") -> dict[str, Tensor]:
    """The images (pairs * steps, C, H, W) for each kind of path; see `interpolate`."""
    recipe = run.recipe
    if not isinstance(recipe, (Autoencodes, Generates)):
        raise UserError(f"{run.name} cannot interpolate: {run.info.recipe} has no codes that decode to images.", code=2)
    if not recipe.interpolates:
        what = f"{run.name} cannot interpolate: the images between two codes of {run.info.recipe} mean nothing."
        raise UserError(what, f"It can draw samples: aelab sample {shlex.quote(run.name)}", code=2)
    if unknown := [kind for kind in kinds if kind not in PATHS]:
        raise UserError(f"there is no path '{unknown[0]}': linear, spherical or both.", code=2)
    if vary != "both" and not run.conditional:
        hints = [f"Train one that does: {run.conditional_command}"] * run.could_be_conditional
        raise UserError(f"{run.name} cannot vary the {vary} alone: it draws no class on request.", *hints, code=2)
    classes = run.classes if run.conditional else 0  # the last values of a code; they always go along a line
    with eval_mode(recipe, seed):
        if vary == "both" and isinstance(recipe, Autoencodes):
            test = run.data().test
            starts, ends = (recipe.encode(test.batch(index)[0]) for index in test.pairs(pairs))
        else:
            assert isinstance(recipe, Generates)
            starts, ends = recipe.sample_prior(pairs), recipe.sample_prior(pairs)
        size = starts.shape[1] - classes
        if vary == "class":
            others = (starts[:, size:].argmax(1) + torch.randint(1, classes, (pairs,), device=starts.device)) % classes
            ends = torch.cat([starts[:, :size], one_hot(others, classes).to(starts)], 1)
        elif vary == "style":
            ends = torch.cat([ends[:, :size], starts[:, size:]], 1)
        t = torch.linspace(0, 1, steps, device=starts.device)
        codes = {
            kind: [
                torch.cat([PATHS[kind](a[:size], b[:size], t), linear(a[size:], b[size:], t)], 1)
                for a, b in zip(starts, ends, strict=True)
            ]
            for kind in kinds
        }
        return {kind: recipe.decode(torch.cat(points)).cpu() for kind, points in codes.items()}


@checked
def reconstruct(
    run: str | Path | Run,
    n: Annotated[int, Ge(1)] = 32,
    *,
    out: Path | None = None,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> Drawing:
    """The reconstructions (n, C, H, W) of n test images, one of each class in turn; the picture shows each below its input.

    The picture is logged to the run, and also written to the file `out`. Raises UserError if the recipe does not reconstruct.
    """
    opened = load(run, device=device, data_dir=data_dir, tracking_uri=tracking_uri)
    inputs = opened.data().test.showcase(n).cpu()
    images = opened.reconstruct(inputs)
    return Drawing(images, _log(opened, f"reconstructions-{n}", pairs(inputs, images), out))


def _log(run: Run, name: str, picture: Picture, out: Path | None) -> Path:
    """Logs a picture to a run, writes it to `out` if that is given, and returns the path."""
    if out:
        write(out, picture)
    writer = run.store.annotate(run.info)
    path = writer.picture(f"pictures/{name}.png", picture)
    writer.close()
    return out or path
