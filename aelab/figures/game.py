"""Figures of the game between generator G and discriminator D: its course, both losses of G, samples as it goes on."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aelab.errors import UserError, visible
from aelab.figures.grids import Picture, tiles
from aelab.figures.style import COLOURS, WIDTH, new_figure, plain
from aelab.figures.tiles import draw_image, rows_of_images
from aelab.figures.trained import TrainedRun, data_name, described, need, need_one_data_set
from aelab.recipe import POINT, Generates

if TYPE_CHECKING:
    import PIL.Image
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]  # of a curve: (epoch or step, value)
OF_D, OF_G = COLOURS[0], COLOURS[1]  # colours of D and what is real, of G and what it draws
COURSE = ("d_real", "d_fake", "d_loss", "g_loss", "d_grad_norm", "g_grad_norm")  # metrics of `game`
EARLY_STEPS = 200  # of a training, in `minimax_and_non_saturating`
EPOCHS_SHOWN, SAMPLES_SHOWN = 7, 10  # rows and columns of `samples_over_training`
FRAME_SIDE = 800  # pixels: the pictures of an animation are enlarged by a whole factor to at least this
FRAME_MS, LAST_MS = 500, 2500  # how long a picture of an animation is seen, and the last one
BAR = 56  # pixels above the pictures of an animation, for the epoch


@need(metrics=tuple(f"train/{name}" for name in COURSE))
def game(run: TrainedRun) -> "Figure":
    """The game of D and G over the epochs: what D says, both losses, both gradients, each with its equilibrium."""
    course = {name: _curve(run, f"train/{name}") for name in COURSE}
    smooth, minimax = float(run.info.params.get("smooth", 0)), run.info.params.get("loss") == "minimax"
    return game_figure(course, smooth, minimax, described(run))


@need(metrics=("step/g_grad_norm", "step/d_fake"))
def minimax_and_non_saturating(*runs: TrainedRun) -> "Figure":
    """The gradient that reaches G in the first steps, by minimax and by the non-saturating loss, and why they differ."""
    need_one_data_set(runs, "minimax-and-non-saturating")
    by_loss: dict[str, list[TrainedRun]] = {"minimax": [], "non-saturating": []}
    for run in runs:
        by_loss.setdefault(run.info.params.get("loss", ""), []).append(run)
    for loss in ("minimax", "non-saturating"):
        if not by_loss[loss]:
            what = f"'minimax-and-non-saturating' compares two losses, and no run here has the {loss} one."
            raise UserError(
                what, f"Train one: aelab train gan --noise 0 --loss {loss} --data {runs[0].config.data}", code=2
            )
    norms, fakes = (
        {loss: [_early(run, metric) for run in by_loss[loss]] for loss in ("minimax", "non-saturating")}
        for metric in ("step/g_grad_norm", "step/d_fake")
    )
    return gradients_figure(norms, fakes, f"{runs[0].info.recipe} on {data_name(runs[0])}")


def _curve(run: TrainedRun, metric: str) -> Points:
    values = run.curve(metric)
    return list(zip(values.index.tolist(), values.tolist(), strict=True))


def _early(run: TrainedRun, metric: str) -> Points:
    points = [(step, value) for step, value in _curve(run, metric) if step <= EARLY_STEPS]
    if not points:
        raise UserError(f"{run.name} has no {metric} of the first {EARLY_STEPS} steps.", code=2)
    return points


@need(Generates)
def samples_over_training(run: TrainedRun) -> "Figure":
    """Samples of the same codes as training goes: a row for an epoch, or for points in the plane a picture."""
    pictures = run.pictures_by_epoch("samples")
    shown = spaced(list(pictures), EPOCHS_SHOWN + (tuple(run.image) == POINT))
    title = f"{described(run)}: samples of the same codes as training goes"
    if tuple(run.image) == POINT:
        return pictures_figure({f"epoch {epoch}": pictures[epoch] for epoch in shown}, title)
    rows = {}
    for epoch in shown:
        images = tiles(pictures[epoch], run.image)
        every = -(-len(images) // SAMPLES_SHOWN) if run.conditional else 1  # then its rows are classes
        rows[f"epoch {epoch}"] = images[::every][:SAMPLES_SHOWN]
    return rows_of_images(rows, title)


def animate_samples(run: TrainedRun, path: Path) -> None:
    """Writes the pictures of samples of the same codes, epoch by epoch, as an animated GIF.

    Raises UserError if the run has no such pictures, or the file cannot be written.
    """
    frames = animation(run.pictures_by_epoch("samples"), described(run))
    times = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frames[0].save(path, format="GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}", code=2) from error


def spaced(epochs: Sequence[int], n: int) -> list[int]:
    """At most n of the ascending epochs, the first and the last among them; the early ones, in which most happens, are denser.

    Beside the first they lie nearest to a geometric sequence.
    """
    if len(epochs) <= n:
        return list(epochs)
    first, later = epochs[0], epochs[1:]
    wanted = np.geomspace(max(1, later[0]), later[-1], n - 1)
    chosen: list[int] = []
    for each in wanted.tolist():
        chosen.append(min((epoch for epoch in later if epoch not in chosen), key=lambda epoch: abs(epoch - each)))
    return [first, *sorted(chosen)]


def equilibrium(smooth: float, minimax: bool) -> tuple[float, float, float]:
    """D, d_loss and g_loss where G draws the density of the images, with the targets 1 - s of real images and 0.

    D = (1 - s)/2 minimises -(1 - s) log D - s log(1 - D) - log(1 - D). Without smoothing: 1/2, 2 log 2, and log 2 or -log 2.
    """
    d = (1 - smooth) / 2
    d_loss = -(1 - smooth) * math.log(d) - (1 + smooth) * math.log(1 - d)
    return d, d_loss, math.log(1 - d) if minimax else -math.log(d)


@plain
def game_figure(course: Mapping[str, Points], smooth: float, minimax: bool, title: str) -> "Figure":
    """Three panels over the epochs, from the curves of COURSE: what D says, both losses, both gradient norms."""
    figure = new_figure(WIDTH, 4.2)
    last = {name: points[-1][1] for name, points in course.items()}
    figure.suptitle(
        f"{visible(title)}: in the last epoch D(x) = {last['d_real']:.2f}, D(G(z)) = {last['d_fake']:.2f}, "
        f"loss of D {last['d_loss']:.2f}",
        fontsize=12,
    )
    said, losses, norms = figure.subplots(1, 3)
    d, d_loss, g_loss = equilibrium(smooth, minimax)
    _curves(said, {"D(x), real": course["d_real"], "D(G(z)), generated": course["d_fake"]}, "what D says")
    said.set_ylim(0, 1)
    _level(said, 0.5, "1/2")
    if smooth:
        _level(said, d, f"(1 - s)/2 = {d:.3g}, s = {smooth:g}")
    _curves(losses, {"D": course["d_loss"], "G": course["g_loss"]}, "loss, nats per image")
    smoothed = f", s = {smooth:g}" if smooth else ""
    _level(losses, d_loss, f"D: {'2 log 2 = ' if not smooth else ''}{d_loss:.3f}{smoothed}", course["d_loss"])
    _level(
        losses,
        g_loss,
        f"G: {('-log 2 = ' if minimax else 'log 2 = ') if not smooth else ''}{g_loss:.3f}{smoothed}",
        course["g_loss"],
    )
    low, high = losses.get_ylim()
    losses.set_ylim(min(low, g_loss - 0.15, 0), max(high, d_loss + 0.15))
    _curves(norms, {"D": course["d_grad_norm"], "G": course["g_grad_norm"]}, "norm of the gradient")
    _logarithmic(norms)
    return figure


def _curves(axes: "Axes", curves: Mapping[str, Points], label: str) -> None:
    """Two curves over epochs, that of D first."""
    for (name, points), colour, line in zip(curves.items(), (OF_D, OF_G), ("-", "--"), strict=True):
        x, y = zip(*points, strict=True)
        axes.plot(x, y, line, color=colour, linewidth=1.8, label=name, marker="o" if len(points) == 1 else "")
    axes.set_xlabel("epoch")
    axes.set_title(label, fontsize=11)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, frameon=False, fontsize=9, columnspacing=1)
    axes.spines[["top", "right"]].set_visible(False)


def _level(axes: "Axes", value: float, text: str, beside: Points = ()) -> None:
    """A dotted line at a value. Its text is at the left end above it, or at the right end, away from the curve `beside` it."""
    axes.axhline(value, color="0.4", linestyle=":", linewidth=1.2)
    below = bool(beside) and beside[-1][1] > value
    axes.annotate(
        text,
        (1 if beside else 0, value),
        xycoords=("axes fraction", "data"),
        xytext=(-2 if beside else 4, -4 if below else 3),
        textcoords="offset points",
        ha="right" if beside else "left",
        va="top" if below else "bottom",
        fontsize=9,
        color="0.25",
    )


def _logarithmic(axes: "Axes") -> None:
    """A logarithmic y axis with plain numbers at 1, 2 and 5: the usual labels are mathematical text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", alpha=0.3)


@plain
def gradients_figure(
    norms: Mapping[str, Sequence[Points]], fakes: Mapping[str, Sequence[Points]], title: str
) -> "Figure":
    """To the left the norm of G's gradient by steps, a line a run; to the right what each loss makes of D(G(z)).

    Both mappings have the losses "minimax" and "non-saturating", and for each loss the curves of its runs: of the norm, and of
    the mean of D(G(z)). The derivative of log(1 - D) by the logit of D is -D, that of -log D is -(1 - D).
    """
    figure = new_figure(WIDTH, 4.6)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.35, 1)})
    colours = {"minimax": OF_D, "non-saturating": OF_G}
    means = {}
    for loss, runs in norms.items():
        values = [value for points in runs for _, value in points]
        means[loss] = sum(values) / len(values)
        for k, points in enumerate(runs):
            x, y = zip(*points, strict=True)
            left.plot(
                x, y, color=colours[loss], linewidth=1.4, label=f"{loss}, mean {means[loss]:.2g}" if not k else None
            )
    first = max(step for runs in norms.values() for points in runs for step, _ in points)
    figure.suptitle(
        f"{visible(title)}: the gradient of G in the first {first:.0f} steps is "
        f"{means['non-saturating'] / means['minimax']:.1f} times as large with the non-saturating loss",
        fontsize=12,
    )
    left.set_title("norm of the gradient that reaches G", fontsize=11)
    left.set_xlabel("step")
    _logarithmic(left)
    left.legend(loc="best", fontsize=9)
    d = torch.linspace(0, 1, 101)
    for loss, weight, formula in (("minimax", d, "log(1 - D):  D"), ("non-saturating", 1 - d, "-log D:  1 - D")):
        right.plot(d.tolist(), weight.tolist(), color=colours[loss], linewidth=1.8, label=f"{loss}, {formula}")
        values = [value for points in fakes[loss] for _, value in points]
        mean = sum(values) / len(values)
        there = mean if loss == "minimax" else 1 - mean
        right.plot([mean], [there], "o", color=colours[loss], markersize=8)
    right.set_title("weight of the gradient of D's logit", fontsize=11)
    right.set(xlabel="D(G(z));  dots: mean of these steps", ylim=(-0.03, 1.3), yticks=[0, 0.25, 0.5, 0.75, 1])
    right.legend(loc="upper center", fontsize=9, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


@plain
def pictures_figure(pictures: Mapping[str, Picture], title: str, columns: int = 4) -> "Figure":
    """Pictures (H, W, 3) in rows, each below its name."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = new_figure(WIDTH, (WIDTH / columns + 0.2) * rows + 0.4)
    figure.suptitle(visible(title), fontsize=12)
    cells = figure.subplots(rows, columns, squeeze=False).flatten()
    for cell in cells[len(pictures) :]:
        cell.set_axis_off()
    for cell, (name, picture) in zip(cells, pictures.items(), strict=False):
        draw_image(cell, _tensor(picture))
        cell.set_title(visible(name), fontsize=10)
    return figure


def _tensor(picture: Picture) -> Tensor:
    """A picture (H, W, 3) of bytes as an image (3, H, W) in [0, 1]."""
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def animation(pictures: Mapping[int, Picture], title: str) -> "list[PIL.Image.Image]":
    """The pictures (H, W, 3) by epoch as frames of one size, enlarged without smoothing, each below its title and epoch."""
    from PIL import Image, ImageDraw, ImageFont

    high, wide = next(iter(pictures.values())).shape[:2]
    scale = max(1, -(-FRAME_SIDE // max(high, wide)))
    font = ImageFont.load_default(size=26)
    frames = []
    for epoch, picture in sorted(pictures.items()):
        frame = Image.new("RGB", (wide * scale, high * scale + BAR), "white")
        ImageDraw.Draw(frame).text((12, 12), visible(f"{title}: epoch {epoch}"), fill="black", font=font)
        frame.paste(Image.fromarray(picture).resize((wide * scale, high * scale), Image.Resampling.NEAREST), (0, BAR))
        frames.append(frame)
    return frames
