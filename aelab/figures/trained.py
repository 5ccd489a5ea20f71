"""What a figure needs to know of a trained run. `aelab.Run` has all of it; nothing else of a run is used here."""

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol

from torch import Tensor

from aelab.errors import UserError
from aelab.recipe import POINT, ImageShape, Recipe

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from aelab.data import Dataset
    from aelab.figures.grids import Picture

P = ParamSpec("P")

HAS = {  # a protocol of `aelab.recipe` -> what a recipe without it lacks
    "Encodes": "encoder",
    "Decodes": "decoder",
    "Autoencodes": "reconstructions",
    "Classifies": "classes to predict",
    "Denoises": "noise to remove",
    "HasPosterior": "posterior q(z|x)",
    "HasFilters": "filters",
    "Generates": "prior to sample from",
    "Discriminates": "discriminator",
}


class TrainedRun(Protocol):
    """A trained run as a figure sees it. Images are (N, C, H, W) in [0, 1], codes (N, D), both on the CPU."""

    @property
    def name(self) -> str: ...
    @property
    def recipe(self) -> Recipe: ...
    @property
    def info(self) -> Any: ...  # its recipe's name, params, metrics, seconds
    @property
    def config(self) -> Any: ...  # the name of its data, its settings
    @property
    def image(self) -> ImageShape: ...
    @property
    def classes(self) -> int: ...
    @property
    def conditional(self) -> bool: ...

    def data(self) -> "Dataset": ...
    def encode(self, images: Tensor) -> Tensor: ...
    def decode(self, codes: Tensor) -> Tensor: ...
    def reconstruct(self, images: Tensor) -> Tensor: ...
    def sample(self, n: int | None = None, *, label: str | int | None = None, seed: int = 0) -> Tensor: ...
    def curve(self, metric: str) -> "pd.Series[float]": ...
    def verdicts(self, images: Tensor) -> Tensor: ...
    def corrupt(self, images: Tensor, *, seed: int = 0) -> Tensor: ...
    def pca(self, dimension: int) -> tuple[Tensor, Tensor]: ...
    def discriminate(self, images: Tensor) -> Tensor: ...
    def pictures_by_epoch(self, name: str) -> "Mapping[int, Picture]": ...


def need(
    *protocols: type, metrics: tuple[str, ...] = (), unless: Callable[[TrainedRun], str] = lambda _: ""
) -> "Callable[[Callable[P, Figure]], Callable[P, Figure]]":
    """Marks a function of runs as the figure of its name, and checks first what its runs have.

    A UserError is raised if the recipe of a run lacks one of the `protocols`, the run one of the `metrics`, or if `unless`
    gives another reason.
    """

    def decorate(draw: "Callable[P, Figure]") -> "Callable[P, Figure]":
        @wraps(draw)
        def inner(*runs: P.args, **options: P.kwargs) -> "Figure":
            for run in runs:
                if reason := lacking(inner, run):  # type: ignore[arg-type]
                    raise UserError(f"{run.name} has no figure '{figure_name(inner)}': {reason}.", code=2)  # type: ignore[attr-defined]
            return draw(*runs, **options)

        inner.needs = protocols, metrics, unless  # type: ignore[attr-defined]
        return inner

    return decorate


def figure_name(draw: "Callable[..., Figure]") -> str:
    """The name of a figure on the command line: that of its function, with hyphens."""
    return draw.__name__.replace("_", "-")


def lacking(draw: "Callable[..., Figure]", run: TrainedRun) -> str:
    """Why a figure cannot be made of a run; an empty text if it can."""
    protocols, metrics, unless = draw.needs  # type: ignore[attr-defined]
    for protocol in protocols:
        if not isinstance(run.recipe, protocol):
            return f"{run.info.recipe} has no {HAS.get(protocol.__name__, protocol.__name__)}"
    for metric in metrics:
        if metric not in run.info.metrics:
            return f"it has no metric {metric}"
    return str(unless(run))


def without_classes(run: TrainedRun) -> str:
    """A reason for `unless`: the images have no classes to be told apart."""
    return "" if run.classes > 1 else f"{run.config.data} has no classes"


def without_points(run: TrainedRun) -> str:
    """A reason for `unless`: the data are not points in the plane."""
    return "" if tuple(run.image) == POINT else f"{run.config.data} are no points in the plane, such as --data ring"


def need_one_data_set(runs: Sequence[TrainedRun], figure: str) -> None:
    """Raises UserError if runs that are to be compared on the same images were trained on different data."""
    if len({run.info.tags.get("aelab.data_fingerprint") for run in runs}) > 1:
        raise UserError(f"'{figure}' compares runs on the same images: these were trained on different data.", code=2)


def data_name(run: TrainedRun) -> str:
    """The data of a run in a title: the name of the data set, or that of the folder without its path."""
    return Path(run.config.data).name


def described(*runs: TrainedRun) -> str:
    """Runs in a title: recipe, data, size of the code; the data alone if the runs differ in the others."""
    size = runs[0].info.params.get("latent_dim")
    if len({(run.info.recipe, run.info.params.get("latent_dim")) for run in runs}) > 1:
        return data_name(runs[0])
    return f"{runs[0].info.recipe} on {data_name(runs[0])}" + (f", code of {size}" if size else "")


def options_apart(runs: Sequence[TrainedRun], *varied: str) -> list[str]:
    """A label for each run: its recipe, and the options in which runs of that recipe differ, but for the `varied` ones.

    Runs under one label are repetitions, of other seeds, or differ in `varied` alone.
    """
    ignored = {*varied, "recipe", "seed", "device", "parameters"}
    labels = []
    for run in runs:
        alike = [other.info.params for other in runs if other.info.recipe == run.info.recipe]
        names = sorted({name for params in alike for name in params} - ignored)
        apart = [name for name in names if len({params.get(name) for params in alike}) > 1]
        labels.append(", ".join([run.info.recipe, *(f"{name} {run.info.params.get(name, '-')}" for name in apart)]))
    return labels
