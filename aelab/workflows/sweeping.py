"""Sweeps over latent dimension and seed, under a parent run that holds the table, the curve and the contact sheet."""

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge
from torch import Tensor

from aelab import recipe_files
from aelab.errors import UserError, checked
from aelab.evaluation import reconstruct
from aelab.figures import contact_sheet, curve
from aelab.recipe import Autoencodes
from aelab.results import csv, latex, markdown, records
from aelab.tracking import RunInfo, RunWriter, Store
from aelab.training import LARGEST_SEED
from aelab.workflows import launching
from aelab.workflows.evaluating import measure_plainly
from aelab.workflows.launching import Job
from aelab.workflows.loading import open_run
from aelab.workflows.planning import Config, Plan, given, plan
from aelab.workflows.together import refuse_torchrun

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SHEET_IMAGES = 20  # test images on the contact sheet
ERRORS = ("mse", "sse", "psnr")


@dataclass(frozen=True)
class Sweep:
    """The result of `aelab.sweep`.

    `info` is the parent run, `rows` has a row for each run, `pictures` the files of the curve and of the contact sheets, and
    `failed` says of each point that failed why.
    """

    info: RunInfo
    rows: list[dict[str, object]]
    pictures: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def table(self) -> "pd.DataFrame":
        """One row per latent dimension: mean and standard deviation of each error over seeds, and the error of PCA.

        The errors are of the test images: mse per pixel, sse per image, psnr in dB. With one seed there are no standard
        deviations. Raises UserError if no run succeeded.
        """
        if not self.rows:
            raise UserError("no point of the sweep succeeded, so there is no table.", *self.failed[:2])
        return by_dimension(self.rows)


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    dimension: int
    seed: int
    config: Config

    def __str__(self) -> str:
        return f"latent_dim {self.dimension}, seed {self.seed}"


@checked
def sweep(
    recipe: str | Path = "stacked",
    *,
    latent_dim: int | Iterable[int],
    seed: int | Iterable[int] = 0,
    jobs: Annotated[int, Ge(1)] = 1,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    offline: bool = False,
    data_dir: Path | str | None = None,
    **options: Any,
) -> Sweep:
    """Trains one run per latent dimension and seed, and evaluates each on the test images beside the PCA of equal size.

    `options` are those of `train` and of the recipe. A point that is done already, with the same recipe source, options,
    settings and data, is not trained again; a stopped one is resumed. Repeating a sweep continues it in its parent run. If a
    point fails, the others continue. `jobs` of them run at once. Raises UserError if the recipe has no latent_dim or does not
    reconstruct.
    """
    refuse_torchrun("a sweep")
    dimensions, seeds = _numbers("latent_dim", latent_dim), _numbers("seed", seed)
    if not 0 <= min(seeds) <= max(seeds) <= LARGEST_SEED:
        raise UserError(f"seeds lie between 0 and {LARGEST_SEED}, not at {min(seeds)} and {max(seeds)}.", code=2)
    planned = plan(str(recipe), seed=seeds[0], data_dir=data_dir, **options)
    points = _points(planned, dimensions, seeds)
    store = Store(tracking_uri, offline, warn=log.warning)
    parent = _parent(points, planned, store, experiment)
    several = len(seeds) > 1
    todo = [
        Job(
            point.config,
            planned.recipe_file,
            str(point),
            f"{planned.recipe_file.name}-{point.dimension}d-" + f"seed{point.seed}-" * several,
            experiment,
            parent.id,
        )
        for point in points
    ]
    try:
        reasons = launching.run_all(todo, jobs, store, planned.data, Path(data_dir) if data_dir else None)
        rows, pictures = _measured(todo, points, reasons, planned, parent, store)
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "code", 0) > 128
        parent.tags({"aelab.reason": str(error) or type(error).__name__})
        parent.close("KILLED" if stopped else "FAILED")
        raise
    failed = [f"{point}: {reason}".replace("\n", " ") for point, reason in zip(points, reasons, strict=True) if reason]
    parent.close("FAILED" if failed else "FINISHED")
    return Sweep(store.get(parent.id), rows, pictures, failed)


def _numbers(name: str, values: int | Iterable[int]) -> list[int]:
    """A list of one or several whole numbers, without duplicates. Raises UserError for anything else."""
    try:
        numbers = list(dict.fromkeys([values] if isinstance(values, int) else values))
    except ValueError:  # pydantic looks at the items of an iterable only when they are asked for
        numbers = []
    if not numbers:
        raise UserError(f"{name} of a sweep is a whole number or several.", code=2)
    return numbers


def _points(planned: Plan, dimensions: Sequence[int], seeds: Sequence[int]) -> list[Point]:
    """All points, dimension by dimension. Raises UserError for an impossible one, before anything is trained."""
    config, recipe_file, data = planned.config, planned.recipe_file, planned.data
    points = []
    for dimension in dimensions:
        options = {**config.options, "latent_dim": dimension}
        recipe = recipe_files.build(recipe_file, data.image, options, len(data.classes))
        if not isinstance(recipe, Autoencodes):
            raise UserError(f"{recipe_file.name} does not reconstruct images, so there is no error to compare.", code=2)
        for seed in seeds:
            settings = replace(config.settings, seed=seed)
            points.append(Point(dimension, seed, replace(config, options=options, settings=settings)))
    return points


def _parent(points: Sequence[Point], planned: Plan, store: Store, experiment: str | None) -> RunWriter:
    """The parent run of a sweep: that of the same sweep before, if there is one, else a new one."""
    identities = [replace(planned, config=point.config).identity for point in points]
    identity = hashlib.sha256(" ".join(identities).encode()).hexdigest()
    if before := store.newest(kind="sweep", identity=identity):
        return store.reopen(before)
    config, recipe_file, data = planned.config, planned.recipe_file, planned.data
    return store.create(
        experiment,
        f"{recipe_file.name}-latent-",
        params={
            "recipe": recipe_file.name,
            "latent_dim": " ".join(str(d) for d in dict.fromkeys(p.dimension for p in points)),
            **config.options,
            "data": data.name,
            **given(asdict(config.settings)),
            "seed": " ".join(str(s) for s in dict.fromkeys(p.seed for p in points)),
        },
        tags={
            "aelab.kind": "sweep",
            "aelab.identity": identity,
            "aelab.recipe": recipe_file.name,
            "aelab.recipe_sha256": recipe_file.sha256,
            "aelab.version": metadata.version("aelab"),
            "aelab.data": data.name,
            "aelab.data_fingerprint": data.fingerprint,
        },
    )


def _measured(
    jobs: Sequence[Job],
    points: Sequence[Point],
    reasons: Sequence[str],
    planned: Plan,
    parent: RunWriter,
    store: Store,
) -> tuple[list[dict[str, object]], list[Path]]:
    """A row for each run that succeeded, and the pictures, which are logged to the parent run."""
    truth = planned.data.test.showcase(SHEET_IMAGES)
    rows: list[dict[str, object]] = []
    columns: dict[str, Tensor] = {}
    for job, point, reason in zip(jobs, points, reasons, strict=True):
        info = None if reason else launching.find(job, planned.data, store)
        if info is None:
            continue
        run = open_run(info, store, point.config.settings.device)
        report = measure_plainly(run, planned.data)
        errors = {f"test/{of}{name}": report.metrics[f"test/{of}{name}"] for of in ("", "pca_") for name in ERRORS}
        components = int(report.tags["aelab.pca_components"])
        rows.append(
            {
                "latent_dim": point.dimension,
                "seed": point.seed,
                "run": info.name,
                **errors,
                "pca_components": components,
                "seconds": info.seconds,
            }
        )
        columns.setdefault(f"{point.dimension}-D", reconstruct(run.recipe, truth))
    return rows, _summary(parent, planned.recipe_file.name, rows, columns, truth) if rows else []


def by_dimension(rows: Sequence[dict[str, object]]) -> "pd.DataFrame":
    """One row per dimension: the mean of each error over seeds and, with several seeds, its standard deviation.

    If a PCA has fewer components than the code has dimensions, a column shows their number.
    """
    import pandas as pd

    frame = pd.DataFrame(rows)
    groups = frame.groupby("latent_dim")
    table = pd.DataFrame({"runs": groups.size()})
    for name in ERRORS:
        table[name] = groups[f"test/{name}"].mean()
        if groups.size().max() > 1:
            table[f"{name} sd"] = groups[f"test/{name}"].std()
        table[f"PCA {name}"] = groups[f"test/pca_{name}"].mean()
    if (frame["pca_components"] != frame["latent_dim"]).any():
        table["PCA components"] = groups["pca_components"].max()
    table["seconds"] = groups["seconds"].mean()
    return table.reset_index()


def _summary(
    parent: RunWriter, name: str, rows: list[dict[str, object]], columns: dict[str, Tensor], truth: Tensor
) -> list[Path]:
    """Logs the table, the curve and the contact sheet of a sweep to its parent run."""
    import pandas as pd

    table, frame = by_dimension(rows), pd.DataFrame(rows)
    for row in records(table):
        parent.metrics(
            {
                "test/" + key.replace("PCA ", "pca_").replace(" ", "_"): value
                for key, value in row.items()
                if isinstance(value, float) and key != "seconds"
            },
            int(str(row["latent_dim"])),
        )
    parent.json("latent.json", records(frame))
    parent.text("latent.csv", csv(frame))
    parent.text("latent.md", markdown(table))
    parent.tags({"mlflow.note.content": markdown(table)})  # the description in MLflow's pages
    parent.text("latent.tex", latex(table))
    deviations = {name: list(table["sse sd"].fillna(0))} if "sse sd" in table else {}
    lines = curve(
        list(table["latent_dim"]),
        {name: list(table["sse"]), "PCA": list(table["PCA sse"])},
        "latent dimension",
        "squared error per image",
        "Test reconstruction error against code size",
        deviations,
    )
    ordered = {name: columns[name] for name in sorted(columns, key=lambda name: int(name.removesuffix("-D")))}
    sheet = contact_sheet({**ordered, "ground truth": truth}, f"{name}: the same test images through each code")
    return [parent.picture("pictures/latent-curve.png", lines), parent.picture("pictures/latent-sheet.png", sheet)]
