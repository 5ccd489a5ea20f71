"""Figures of reconstructions and samples."""

from typing import TYPE_CHECKING

from torch import Tensor

from aelab.errors import visible
from aelab.figures.tiles import rows_of_images, sheet_of_images
from aelab.figures.trained import TrainedRun, data_name, described, need, need_one_data_set
from aelab.recipe import Autoencodes, Generates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 10  # test images
WIDE = 16  # samples in a row: 64 fill a slide


@need(Autoencodes)
def reconstructions(*runs: TrainedRun, n: int = SHOWN) -> "Figure":
    """The first test images and their reconstructions by each run, with the squared error below each."""
    need_one_data_set(runs, "reconstructions")
    x = runs[0].data().test.batch(slice(0, n))[0].cpu()  # (n, C, H, W)
    rows = {_label(run): run.reconstruct(x) for run in runs}
    name = data_name(runs[0])
    return reconstruction_rows(x, rows, f"{name}: the first {len(x)} test images and their reconstructions")


def reconstruction_rows(x: Tensor, rows: dict[str, Tensor], title: str) -> "Figure":
    """A row of images x (N, C, H, W), and under its label each row of reconstructions with their squared errors."""
    texts = {
        label: [f"{error:.1f}" for error in (row - x).square().sum((1, 2, 3)).tolist()] for label, row in rows.items()
    }
    return rows_of_images(
        {"test images": x, **rows}, f"{title}\nbelow each: squared error, summed over the pixels", texts
    )


def _label(run: TrainedRun) -> str:
    """What is compared: name, size of the code, number of parameters, seconds of training."""
    size = run.info.params.get("latent_dim", "?")
    parameters = sum(parameter.numel() for parameter in run.recipe.parameters())
    seconds = run.info.seconds
    cost = [f"{parameters:,} parameters", *([f"{_duration(seconds)} of training"] if seconds is not None else [])]
    return "\n".join([visible(f"{run.name:.24}"), f"code of {size}", *cost])


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


@need(Generates)
def samples(run: TrainedRun, n: int = 64) -> "Figure":
    """Samples of a run; of a conditional one a row for each class."""
    if run.conditional:
        names = run.data().classes
        return sheet_of_images(run.sample(label="all"), f"{described(run)}: samples by class", 10, names)
    return sheet_of_images(run.sample(n), f"{described(run)}: {n} samples, not selected", min(n, WIDE))
