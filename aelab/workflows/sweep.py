"""A sweep: one run a latent dimension and seed, under a parent run that holds their table, curve and sheet."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from aelab import __version__, figures, recipe_files
from aelab.console import Screen
from aelab.data import Dataset
from aelab.errors import UserError
from aelab.evaluation.diagnostics import said_by_test
from aelab.evaluation.evaluate import reconstruct
from aelab.evaluation.report import report_of
from aelab.recipe import Autoencodes
from aelab.recipe_files import RecipeFile
from aelab.results.formats import csv, latex, markdown, records
from aelab.tracking import RunInfo, RunWriter, Store
from aelab.workflows import launch
from aelab.workflows.config import Config, given
from aelab.workflows.train import identity, open_run

SHEET = 20  # test images on a contact sheet
FIGURES = ("mse", "sse", "psnr")


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep: its parent run, one row a run and one a dimension, its pictures, and which points failed."""

    info: RunInfo
    rows: list[dict[str, object]]
    table: list[dict[str, object]]
    pictures: list[Path]
    failed: list[str]


@dataclass(frozen=True)
class Point:
    """One run of a sweep."""

    dimension: int
    seed: int
    config: Config

    def __str__(self) -> str:
        return f"latent_dim {self.dimension}, seed {self.seed}"


def compare_latent(
    dimensions: Sequence[int],
    seeds: Sequence[int],
    config: Config,
    store: Store,
    screen: Screen,
    *,
    data: Dataset,
    data_dir: Path | None = None,
    experiment: str | None = None,
    jobs: int = 1,
) -> Sweep:
    """Trains one run a latent dimension and seed, evaluates each on the test set beside the PCA of the same size.

    A point that is done already (same recipe source, options, settings and data) is not trained again, one that was stopped is
    resumed, and the same sweep typed again goes on in its parent run. A point that fails is named and the others go on;
    `jobs` of them run at once. Raises UserError where the recipe has no latent_dim or does not reconstruct.
    """
    page = recipe_files.find(config.recipe)
    points = []
    for dimension in dimensions:  # before anything is trained
        options = {**config.options, "latent_dim": dimension}
        recipe = recipe_files.build(page, data.image, options, len(data.classes))
        if not isinstance(recipe, Autoencodes):
            raise UserError(f"{page.name} does not reconstruct images, so there is no error to compare.", code=2)
        seeded = [replace(config, options=options, settings=replace(config.settings, seed=seed)) for seed in seeds]
        points += [Point(dimension, each.settings.seed, replace(each, data=data.name)) for each in seeded]
    parent = _parent(points, page, config, store, data, experiment)
    orders = [
        launch.Job(
            point.config, str(point), f"{page.name}-{point.dimension}d-" + f"seed{point.seed}-" * (len(seeds) > 1),
            experiment, parent.id,
        )
        for point in points
    ]  # fmt: skip
    truth = data.test.showcase(SHEET)
    rows: list[dict[str, object]] = []
    columns: dict[str, Tensor] = {}
    try:
        reasons = launch.run(orders, jobs, store, screen, data, data_dir)
        for point, reason in zip(points, reasons, strict=True):
            info = None if reason else launch.find(point.config, store, data)
            if info is None:
                continue
            recipe = open_run(info, store, screen, point.config.settings.device).recipe
            device = next(recipe.parameters()).device
            report = report_of(recipe, data.to(device), screen, draws=0, seed=point.seed, plain=True)
            store.add_figures(info, report.figures)
            for each in said_by_test(report.figures):
                screen.warn(f"{info.name}: {each}")
            named = {f"test/{of}{name}": report.figures[f"test/{of}{name}"] for of in ("", "pca_") for name in FIGURES}
            rows.append(
                {"latent_dim": point.dimension, "seed": point.seed, "run": info.name, **named,
                 "pca_components": int(report.tags["aelab.pca_components"]), "seconds": info.seconds}
            )  # fmt: skip
            columns.setdefault(f"{point.dimension}-D", reconstruct(recipe, truth))
        frame = pd.DataFrame(rows)
        written = _summary(parent, page.name, frame, columns, truth) if rows else []
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "code", 0) > 128
        parent.tags({"aelab.reason": str(error) or type(error).__name__})
        parent.close("KILLED" if stopped else "FAILED")
        raise
    failed = [f"{point}: {reason}" for point, reason in zip(points, reasons, strict=True) if reason]
    parent.close("FAILED" if failed else "FINISHED")
    return Sweep(store.get(parent.id), rows, records(by_dimension(frame)) if rows else [], written, failed)


def _parent(
    points: Sequence[Point], page: RecipeFile, config: Config, store: Store, data: Dataset, experiment: str | None
) -> RunWriter:
    """The parent run of a sweep: the one of the same sweep typed before, or a new one."""
    same = hashlib.sha256(" ".join(identity(point.config, page, data) for point in points).encode()).hexdigest()
    if before := store.newest(kind="sweep", identity=same):
        return store.reopen(before)
    return store.create(
        experiment, f"{page.name}-latent-",
        params={
            "recipe": page.name, "latent_dim": " ".join(str(d) for d in dict.fromkeys(p.dimension for p in points)),
            **config.options, "data": data.name, **given(asdict(config.settings)),
            "seed": " ".join(str(s) for s in dict.fromkeys(p.seed for p in points)),
        },
        tags={"aelab.kind": "sweep", "aelab.identity": same, "aelab.recipe": page.name,
              "aelab.recipe_sha256": page.sha256, "aelab.version": __version__, "aelab.data": data.name,
              "aelab.data_fingerprint": data.fingerprint},
    )  # fmt: skip


def by_dimension(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a dimension: the mean of each figure over seeds and, with several, its standard deviation.

    A column says how many components the PCA has, where that is not the dimension everywhere.
    """
    groups = frame.groupby("latent_dim")
    table = pd.DataFrame({"runs": groups.size()})
    for name in FIGURES:
        table[name] = groups[f"test/{name}"].mean()
        if groups.size().max() > 1:
            table[f"{name} sd"] = groups[f"test/{name}"].std()
        table[f"PCA {name}"] = groups[f"test/pca_{name}"].mean()
    if (frame["pca_components"] != frame["latent_dim"]).any():
        table["PCA components"] = groups["pca_components"].max()
    table["seconds"] = groups["seconds"].mean()
    return table.reset_index()


def _summary(
    parent: RunWriter, name: str, frame: pd.DataFrame, columns: dict[str, Tensor], truth: Tensor
) -> list[Path]:
    """Table, curve and contact sheet of a sweep, on its parent run."""
    table = by_dimension(frame)
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
    error = list(table["sse sd"].fillna(0)) if "sse sd" in table else None
    curve = figures.curve(
        list(table["latent_dim"]), {name: list(table["sse"]), "PCA": list(table["PCA sse"])}, "latent dimension",
        "squared error per image", "Test reconstruction error against code size", {name: error} if error else {},
    )  # fmt: skip
    ordered = {name: columns[name] for name in sorted(columns, key=lambda name: int(name.removesuffix("-D")))}
    sheet = figures.contact_sheet({**ordered, "ground truth": truth}, f"{name}: the same test images through each code")
    return [parent.picture("pictures/latent-curve.png", curve), parent.picture("pictures/latent-sheet.png", sheet)]
