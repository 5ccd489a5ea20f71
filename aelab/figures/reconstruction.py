"""Figures of reconstructions and samples."""

from typing import TYPE_CHECKING

from aelab.figures.tiles import rows_of_images, sheet_of_images
from aelab.figures.trained import TrainedRun, described, need, need_one_data_set
from aelab.recipe import Autoencodes, Generates

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 10  # test images


@need(Autoencodes)
def reconstructions(*runs: TrainedRun, n: int = SHOWN) -> "Figure":
    """The first test images and their reconstructions by each run, with the squared error below each."""
    need_one_data_set(runs, "reconstructions")
    x = runs[0].data().test.batch(slice(0, n))[0].cpu()  # (n, C, H, W)
    rows, texts = {"test images": x}, {}
    for run in runs:
        label = f"{run.name}\n{run.info.params.get('latent_dim', '?')} numbers"
        rows[label] = run.reconstruct(x)
        texts[label] = [f"{error:.1f}" for error in ((rows[label] - x) ** 2).sum((1, 2, 3)).tolist()]
    data = runs[0].config.data
    return rows_of_images(rows, f"{data}: test images and their reconstructions, squared error below each", texts)


@need(Generates)
def samples(run: TrainedRun, n: int = 64) -> "Figure":
    """Samples of a run; of a conditional one a row for each class."""
    if run.conditional:
        names = run.data().classes
        return sheet_of_images(run.sample(label="all"), f"{described(run)}: samples by class", 10, names)
    return sheet_of_images(run.sample(n), f"{described(run)}: samples")
