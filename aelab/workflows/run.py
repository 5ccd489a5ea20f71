"""A trained run: its recipe with the kept weights, and the methods to use it."""

import copy
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge, Interval
from torch import Tensor

from aelab.data import Dataset
from aelab.errors import UserError, checked
from aelab.evaluation import eval_mode, fit_pca, verdicts
from aelab.figures import FIGURES, available
from aelab.recipe import (
    Autoencodes,
    Denoises,
    Generates,
)
from aelab.tracking import RunInfo, Store
from aelab.training import LARGEST_SEED
from aelab.workflows.model import Model
from aelab.workflows.planning import open_configured

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from aelab.figures import Picture

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run(Model):
    """A trained run: its recipe with the best weights, or the last ones if no metric was monitored.

    It comes from `aelab.train` and `aelab.load`. Images are (N, C, H, W) with pixels in [0, 1], and codes (N, D), both
    float32. Results are on the CPU; numpy arrays are accepted too. `recipe` is the model itself, on `device`; `image` is the
    shape (C, H, W) of an image, and `classes` the number K of classes, 0 if the data have none.
    """

    store: Store
    data_dir: Path | None = None
    validation: Mapping[str, float] = field(default_factory=dict)  # metrics of these weights on the validation images

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of each metric that had been logged when the run was opened."""
        return self.info.metrics

    def reread(self) -> "Run":
        """This run with the metrics and tags that it has in the store now."""
        fresh = copy.copy(self)  # with its data, if they are open
        object.__setattr__(fresh, "info", self.store.get(self.id))
        return fresh

    @property
    def folder(self) -> Path:
        """The run's files on this machine."""
        return self.store.folder(self.info)

    @property
    def pictures(self) -> list[Path]:
        """The pictures of the run on this machine."""
        return sorted(self.folder.glob("pictures/*.png"))

    @property
    def verbs(self) -> list[str]:
        """The verbs of the command line that this run supports: eval and show, and sample and interpolate if its recipe can."""
        generates, autoencodes = isinstance(self.recipe, Generates), isinstance(self.recipe, Autoencodes)
        walks = (generates or autoencodes) and self.recipe.interpolates
        return ["eval", *["sample"] * generates, *["interpolate"] * walks, "show"]

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, by number, from the data that the run was trained on."""
        return self.data().classes

    def __repr__(self) -> str:
        return f"<Run {self.name} of {self.info.recipe}, {self.info.status.lower()}>"

    def data(self, force: bool = False) -> Dataset:
        """The data that the run was trained on, on the run's device.

        Raises UserError if the data have changed; with `force` that is a warning.
        """
        check_data(self.info, self._opened, force)
        return self._opened

    @cached_property
    def _opened(self) -> Dataset:
        return open_configured(self.config, self.data_dir).to(self.device)

    def evaluate(self, *, figures: bool = False, **options: Any) -> "pd.Series[float]":
        """The metrics on the test images by name, which are also logged to the run. Options are those of aelab.evaluate.

        `figures` are made and logged too. The units of metrics are on their page. Raises UserError as aelab.evaluate does.
        """
        from aelab.workflows.evaluating import evaluate

        return evaluate(self, figures=figures, **options).series()

    def curve(self, metric: str) -> "pd.Series[float]":
        """The values of a metric over the training: by epoch for train/NAME and val/NAME, by step for step/NAME.

        Raises UserError if the run has no such metric.
        """
        import pandas as pd

        if not (points := self.store.curve(self.info, metric)):
            known = sorted({name for name in self.metrics if name.startswith(("train/", "val/", "step/"))})
            raise UserError(f"{self.name} has no metric '{metric}'.", f"There are: {', '.join(known)}", code=2)
        steps, values = zip(*points, strict=True)
        return pd.Series(values, index=pd.Index(steps, name="step"), name=metric)

    def pictures_by_epoch(self, name: str) -> "dict[int, Picture]":
        """The pictures of one kind that were logged during the training, such as "samples", by epoch; 0 is before it.

        They are arrays (H, W, 3) of bytes. Raises UserError if there are none.
        """
        if not (found := self.store.pictures(self.info, f"pictures/{name}")):
            raise UserError(f"{self.name} has no pictures of {name} by epoch.", code=2)
        return found

    def verdicts(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> the probabilities (N, K) of their classes, by the classifier of the evaluation.

        It is trained once per data set, and kept. Raises UserError if the data have no classes.
        """
        return verdicts(self._images(images), self.data())

    @checked
    def corrupt(self, images: Tensor, *, seed: Annotated[int, Interval(ge=0, le=LARGEST_SEED)] = 0) -> Tensor:
        """Images (N, C, H, W) -> the same with the noise that the recipe removes, drawn with `seed`.

        Raises UserError if the recipe removes no noise.
        """
        if not isinstance(self.recipe, Denoises):
            raise UserError(f"{self.name} adds no noise: {self.info.recipe} does not denoise.", code=2)
        with eval_mode(self.recipe, seed):
            return self.recipe.corrupt(self._images(images).to(self.device).float()).cpu()

    @checked
    def pca(self, dimension: Annotated[int, Ge(1)]) -> tuple[Tensor, Tensor]:
        """The PCA of the training images: their mean (P,) and the first principal components (dimension, P), in float64.

        There are fewer components if the images have no more.
        """
        fitted = fit_pca(self.data().train, dimension)
        return fitted.mean, fitted.components

    def figures(self) -> "dict[str, Figure]":
        """The figures that the run can make, as matplotlib figures by name; `aelab.figures` has each by itself."""
        return {name: FIGURES[name](self) for name in available(self)}


def check_data(info: RunInfo, data: Dataset, force: bool) -> None:
    """Raises UserError, or warns with `force`, if the data are not those that a run was trained on."""
    if data.fingerprint != info.tags.get("aelab.data_fingerprint"):
        what = f"{data.name} in {data.place} is not the data that {info.name} was trained on (its fingerprint differs)."
        if not force:
            raise UserError(what, "Use it anyway with --force.")
        log.warning(what)
