"""Evaluates a run on the test images, and logs the result to it."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from aelab.data import Dataset
from aelab.errors import UserError, checked
from aelab.evaluation import Report, diagnose_test, inception, measure, sampling_seconds
from aelab.recipe import Generates
from aelab.training import pick_device
from aelab.workflows.loading import load
from aelab.workflows.run import Run
from aelab.workflows.showing import show

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SAMPLES = 500  # importance samples per image, by default


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a run on the test images, and the paths of the pictures and figures."""

    run: Run
    report: Report
    data: str
    images: int  # test images
    pictures: list[Path]
    figures: dict[str, list[Path]]  # their files by name; none with `plain`

    def series(self) -> "pd.Series[float]":
        """The metrics by name."""
        import pandas as pd

        return pd.Series(self.report.metrics, name=self.run.name, dtype=float)


@checked
def evaluate(
    run: str | Path | Run,
    *,
    samples: Annotated[int, Ge(0)] | None = None,
    images: Annotated[int, Ge(1)] | None = None,
    batch_size: Annotated[int, Ge(1)] = 250,
    inception_weights: Path | str | None = None,
    plain: bool = False,
    figures: bool = True,
    options: Mapping[str, Any] | None = None,
    force: bool = False,
    device: str = "auto",
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> Evaluation:
    """Evaluates a run on the test images, each metric beside a baseline and a control, and logs the result to the run.

    `samples` is the number of importance samples per image for a likelihood (default 500, or 0 with `plain`), and `images`
    the number of test images that it is computed for, evenly spaced (default all). `batch_size` is the number of images at
    once; no metric depends on it. `inception_weights` is a file of torchvision's inception_v3, which adds distances in its
    features. `plain` leaves out what takes long. `figures` are those that `aelab.show` makes; `plain` has none. `options` of
    the recipe may differ from those of the training, such as the noise level of a denoising autoencoder; this implies
    `plain`, and the metrics are named test/NAME-VALUE/... . Raises UserError if the data are not those of the training,
    unless `force` is set.
    """
    extractor = inception(Path(inception_weights), pick_device(device)) if inception_weights else None
    changed = dict(options or {})
    opened = load(run, device=device, data_dir=data_dir, tracking_uri=tracking_uri, options=changed)
    data = opened.data(force)
    quick = plain or bool(changed)
    draws = (0 if quick else SAMPLES) if samples is None else samples
    report = measure(
        opened.recipe,
        data,
        draws=draws,
        images=images,
        seed=opened.config.settings.seed,
        batch_size=batch_size,
        extractor=extractor,
        plain=quick,
    ).under(changed)
    if isinstance(opened.recipe, Generates) and not quick:
        report.add({"sample_seconds": sampling_seconds(opened.recipe)})
    pictures = log_report(report, opened, data)
    opened = opened.reread()
    for each in diagnose_test(report.metrics, opened.info.tags.get("aelab.diagnostics", "")):
        log.warning(f"{opened.name}: {each}")
    made: dict[str, list[Path]] = {}
    if figures and not quick:
        try:
            made = show(opened)
        except UserError as error:  # the metrics are there and will be shown
            log.warning(f"no figures: {error}")
    return Evaluation(opened, report, data.name, len(data.test), pictures, made)


def faults(run: Run) -> list[str]:
    """What the diagnosis after the training and that of the test metrics found wrong with a run; empty if all is good."""
    trained = run.info.tags.get("aelab.diagnostics", "")
    return [
        *([] if trained.startswith("good") or not trained else [trained]),
        *diagnose_test(run.info.metrics, trained),
    ]


def log_report(report: Report, run: Run, data: Dataset) -> list[Path]:
    """Logs a report on `data` to its run, and returns the paths of its pictures."""
    writer = run.store.annotate(run.info)
    writer.tags(report.tags)
    for name, values in report.lists.items():
        writer.json(f"{name}.json", values)
    paths = [writer.picture(f"pictures/{name}.png", picture) for name, picture in report.pictures.items()]
    writer.close()
    run.store.add_metrics(run.info, report.metrics, (data.name, data.digest))
    return paths


def measure_plainly(run: Run, data: Dataset) -> Report:
    """Computes the quick metrics that a sweep compares, and logs them to the run."""
    report = measure(run.recipe, data.to(run.device), draws=0, seed=run.config.settings.seed, plain=True)
    run.store.add_metrics(run.info, report.metrics, (data.name, data.digest))
    for each in diagnose_test(report.metrics, run.info.tags.get("aelab.diagnostics", "")):
        log.warning(f"{run.name}: {each}")
    return report
