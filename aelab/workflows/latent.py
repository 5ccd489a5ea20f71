"""Latent dimensions compared: a sweep with a table of its own, whose points are measured on the test images beside PCA."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
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
from aelab.workflows.listing import mark_members
from aelab.workflows.loading import open_run
from aelab.workflows.planning import given, opener
from aelab.workflows.points import Point, grid, parent_run, parent_status, runs_by_identity, say_done
from aelab.workflows.together import refuse_torchrun

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

SHEET_IMAGES = 20  # test images on the contact sheet
ERRORS = ("mse", "sse", "psnr")


@dataclass(frozen=True)
class LatentComparison:
    """The result of `aelab.compare_latent`.

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


@checked
def compare_latent(
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
) -> LatentComparison:
    """A sweep of latent dimensions and seeds, each point evaluated on the test images beside the PCA of equal size.

    `options` are those of `train` and of the recipe, the same for all points. For the rest see `sweep`. Raises UserError if the
    recipe has no latent_dim or does not reconstruct.
    """
    refuse_torchrun("a sweep")
    dimensions, seeds = _numbers("latent_dim", latent_dim), _numbers("seed", seed)
    if not 0 <= min(seeds) <= max(seeds) <= LARGEST_SEED:
        raise UserError(f"seeds lie between 0 and {LARGEST_SEED}, not at {min(seeds)} and {max(seeds)}.", code=2)
    directory = Path(data_dir) if data_dir else None
    opened = opener(directory)
    fixed = {name: [value] for name, value in options.items()}
    points = grid(recipe, {"latent_dim": dimensions, **fixed, "seed": seeds}, opened, ["latent_dim", "seed"])
    first = points[0].plan
    recipe_file, data = first.recipe_file, first.data
    if not isinstance(
        recipe_files.build(recipe_file, data.image, first.config.options, len(data.classes)), Autoencodes
    ):
        raise UserError(f"{recipe_file.name} does not reconstruct images, so there is no error to compare.", code=2)
    store = Store(tracking_uri, offline, warn=log.warning)
    parent = parent_run(
        recipe_file,
        [each.plan.identity for each in points],
        {
            **first.config.options,
            "data": data.name,
            **given(asdict(first.config.settings)),
            "latent_dim": " ".join(map(str, dimensions)),
            "seed": " ".join(map(str, seeds)),
        },
        ["latent_dim", "seed"],
        data,
        store,
        experiment,
        f"{recipe_file.name}-latent-",
    )
    with parent_status(parent):
        known = runs_by_identity(recipe_file, store)
        done = [each.plan.identity in known and known[each.plan.identity].status == "FINISHED" for each in points]
        todo = [each.job(parent.id, experiment) for each, has in zip(points, done, strict=True) if not has]
        say_done(points, known)
        reasons = dict(zip((job.label for job in todo), launching.run_all(todo, jobs, store, directory), strict=True))
        known = runs_by_identity(recipe_file, store)
        runs = [None if reasons.get(str(each)) else known.get(each.plan.identity) for each in points]
        mark_members([info for info in runs if info], parent.info, store)
        rows, pictures = _measured(points, runs, parent, store)
        failed = [f"{each}: {reasons[str(each)]}".replace("\n", " ") for each in points if reasons.get(str(each))]
    parent.close("FAILED" if failed else "FINISHED")
    return LatentComparison(store.get(parent.id), rows, pictures, failed)


def _numbers(name: str, values: int | Iterable[int]) -> list[int]:
    """A list of one or several whole numbers, without duplicates. Raises UserError for anything else."""
    try:
        numbers = list(dict.fromkeys([values] if isinstance(values, int) else values))
    except ValueError:  # pydantic looks at the items of an iterable only when they are asked for
        numbers = []
    if not numbers:
        raise UserError(f"{name} of a sweep is a whole number or several.", code=2)
    return numbers


def _measured(
    points: Sequence[Point], runs: Sequence[RunInfo | None], parent: RunWriter, store: Store
) -> tuple[list[dict[str, object]], list[Path]]:
    """A row for each run that succeeded, and the pictures, which are logged to the parent run."""
    data = points[0].plan.data
    truth = data.test.showcase(SHEET_IMAGES)
    rows: list[dict[str, object]] = []
    columns: dict[str, Tensor] = {}
    for point, info in zip(points, runs, strict=True):
        if info is None:
            continue
        settings = point.plan.config.settings
        dimension = point.values["latent_dim"]
        run = open_run(info, store, settings.device)
        report = measure_plainly(run, data)
        errors = {f"test/{of}{name}": report.metrics[f"test/{of}{name}"] for of in ("", "pca_") for name in ERRORS}
        components = int(report.tags["aelab.pca_components"])
        rows.append(
            {
                "latent_dim": dimension,
                "seed": settings.seed,
                "run": info.name,
                **errors,
                "pca_components": components,
                "seconds": info.seconds,
            }
        )
        columns.setdefault(f"{dimension}-D", reconstruct(run.recipe, truth))
    return rows, _summary(parent, points[0].plan.recipe_file.name, rows, columns, truth) if rows else []


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
