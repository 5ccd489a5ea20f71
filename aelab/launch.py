"""Many runs from one command: one a latent dimension, under a parent run that holds their table, curve and contact sheet."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pandas as pd
from torch import Tensor

from aelab import __version__, cookbook, pictures
from aelab.compare import records
from aelab.config import Config
from aelab.console import Screen
from aelab.data import Dataset
from aelab.evaluation import reconstruct, report
from aelab.problem import Problem
from aelab.recipe import Autoencodes
from aelab.runs import Outcome, Stopped, start
from aelab.tracking import Run, RunInfo, Store

SHEET = 20  # test images on a contact sheet


@dataclass(frozen=True)
class Sweep:
    """What came of a sweep: its parent run, one row a dimension, where its pictures are, and which points failed."""

    info: RunInfo
    rows: list[dict[str, object]]
    pictures: list[Path]
    failed: list[str]


def compare_latent(
    dimensions: Sequence[int],
    config: Config,
    store: Store,
    screen: Screen,
    *,
    data: Dataset,
    experiment: str | None = None,
) -> Sweep:
    """Trains one run a latent dimension, evaluates each on the test set beside the PCA of the same size.

    A point that fails is named and the others go on. Raises Problem where the recipe has no latent_dim or does not reconstruct.
    """
    page = cookbook.find(config.recipe)
    for dimension in dimensions:  # before anything is trained
        recipe = cookbook.build(page, data.image, {**config.options, "latent_dim": dimension}, len(data.classes))
        if not isinstance(recipe, Autoencodes):
            raise Problem(f"{page.name} does not reconstruct images, so there is no error to compare.", code=2)
    parent = store.create(
        experiment, f"{page.name}-latent-",
        params={"recipe": page.name, "latent_dim": " ".join(map(str, dimensions)), **config.options, "data": data.name,
                **{k: v for k, v in asdict(config.settings).items() if v is not None}},
        tags={"aelab.kind": "sweep", "aelab.recipe": page.name, "aelab.recipe_sha256": page.sha256,
              "aelab.version": __version__, "aelab.data": data.name, "aelab.data_fingerprint": data.fingerprint},
    )  # fmt: skip
    truth = data.test.showcase(SHEET)
    rows: list[dict[str, object]] = []
    columns: dict[str, Tensor] = {}
    failed = []
    try:
        for dimension in dimensions:
            point = replace(config, options={**config.options, "latent_dim": dimension})
            began = time.perf_counter()
            try:
                outcome = start(
                    point,
                    store,
                    screen,
                    data=data,
                    experiment=experiment,
                    name=f"{page.name}-{dimension}d-",
                    parent=parent.id,
                )
            except Stopped:
                raise
            except Problem as problem:
                failed.append(f"latent_dim {dimension}: {problem}")
                screen.warn(failed[-1])
                continue
            rows.append(
                _point(dimension, outcome, store, screen, parent) | {"seconds": round(time.perf_counter() - began, 1)}
            )
            columns[f"{dimension}-D"] = reconstruct(outcome.recipe, truth)
        written = _summary(parent, page.name, rows, columns, truth) if rows else []
    except BaseException as error:
        parent.tags({"aelab.reason": str(error) or type(error).__name__})
        parent.close("KILLED" if isinstance(error, (Stopped, KeyboardInterrupt)) else "FAILED")
        raise
    parent.close("FAILED" if failed else "FINISHED")
    return Sweep(store.get(parent.id), rows, written, failed)


def _point(dimension: int, outcome: Outcome, store: Store, screen: Screen, parent: Run) -> dict[str, object]:
    """Evaluates one run of a sweep on the test set and logs it there and, over the dimension, on the parent."""
    figures = report(outcome.recipe, outcome.data, screen)
    store.add_figures(outcome.info, figures)
    parent.metrics(figures, dimension)
    shown = ("test/mse", "test/sse", "test/psnr", "test/pca_mse", "test/pca_sse", "test/pca_psnr")
    return {"latent_dim": dimension, "run": outcome.info.name, **{name: figures[name] for name in shown}}


def shown(rows: Sequence[dict[str, object]]) -> list[dict[str, object]]:
    """The columns of a sweep's rows that fit on a terminal."""
    names = {
        "latent_dim": "latent_dim", "run": "run", "test/mse": "mse", "test/sse": "sse",
        "test/pca_mse": "PCA mse", "test/pca_sse": "PCA sse", "seconds": "seconds",
    }  # fmt: skip
    return [{title: row[name] for name, title in names.items()} for row in rows]


def _summary(
    parent: Run, name: str, rows: list[dict[str, object]], columns: dict[str, Tensor], truth: Tensor
) -> list[Path]:
    """Table, curve and contact sheet of a sweep, on its parent run."""
    frame = pd.DataFrame(rows).sort_values("latent_dim")
    parent.json("latent.json", records(frame))
    parent.text("latent.csv", frame.to_csv(index=False))
    lines = {name: list(frame["test/sse"]), "PCA": list(frame["test/pca_sse"])}
    title = "Test reconstruction error against code size"
    curve = pictures.curve(list(frame["latent_dim"]), lines, "latent dimension", "squared error per image", title)
    sheet = pictures.contact_sheet(
        {**columns, "ground truth": truth}, f"{name}: the same test images through each code"
    )
    return [parent.figure("pictures/latent-curve.png", curve), parent.figure("pictures/latent-sheet.png", sheet)]
