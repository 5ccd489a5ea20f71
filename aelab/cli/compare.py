"""The verb that puts runs side by side: compare."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aelab import recipe_files
from aelab.cli.options import (
    DataDir,
    Device,
    Filter,
    Json,
    OfRecipe,
    Quiet,
    Seed,
    Uri,
    destination,
    screen_for,
    short,
    store_for,
)
from aelab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from aelab.console import Screen
    from aelab.tracking import RunInfo, Store

verbs = typer.Typer()
SHEET = 20  # test images on a contact sheet
FORMATS = "Format"


@verbs.command()
def compare(
    run: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs, or sweeps for all of theirs; else all finished ones.")
    ] = None,
    recipe: OfRecipe = None,
    filter_: Filter = "",
    metric: Annotated[list[str] | None, typer.Option(help="A figure to show, such as test/mse; repeatable.")] = None,
    group_by: Annotated[
        list[str] | None,
        typer.Option(help="An option, such as latent_dim: mean and deviation of the runs that agree in it; repeatable."),
    ] = None,
    rows: Annotated[
        str | None, typer.Option(help="An option whose values are the rows, with --columns and one --metric.")
    ] = None,
    columns: Annotated[str | None, typer.Option(help="An option whose values are the columns.")] = None,
    table: Annotated[
        Literal["latent", "labels", "noise", "losses", "models"] | None, typer.Option(help="A standard table, by its name.")
    ] = None,
    curve: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Draw this figure over the training, such as step/g_grad_norm.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File of that picture.  (default: compare-METRIC.png)")] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Draw the same test images through each run, and samples of each, into this folder."),
    ] = None,
    json: Json = False,
    csv: Annotated[bool, typer.Option("--csv", help="The table in CSV.", rich_help_panel=FORMATS)] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="The table in Markdown.", rich_help_panel=FORMATS)] = False,
    latex: Annotated[bool, typer.Option("--latex", help="The table in LaTeX (booktabs).", rich_help_panel=FORMATS)] = False,
    seed: Seed = 0, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Put tracked runs side by side.

    Shows the options in which they differ, and their figures: of the test set where all of them have been evaluated, else
    of the validation set. The best of a column is marked with a star; of reconstructions only where all codes are of one size.
    Tables: latent, error against code size; labels, error against labels; noise, PSNR against level; losses, minimax against
    non-saturating; models, the newest run of each recipe.
    """
    from aelab.figures import DRAWN
    from aelab.results import formats as layout
    from aelab.results.compare import comparison, labels, markable

    if out and not curve:
        raise UserError("--out is for --curve.", code=2)
    if json + csv + markdown + latex > 1:
        raise UserError("give one of --json, --csv, --markdown, --latex.", code=2)
    out = destination(out, DRAWN)
    store = store_for(screen := screen_for(quiet), tracking_uri)
    chosen = _chosen(store, run or [], recipe, filter_)
    frame = _frame(chosen, store, screen, metric or [], group_by or [], rows, columns, table)
    written = _drawn(chosen, curve, out, store) if curve else []
    if pictures:
        written += _sheets(
            chosen,
            dict(zip(labels(comparison(chosen)), chosen, strict=True)),
            pictures,
            seed,
            data_dir,
            device,
            store,
            screen,
        )
    shown = [info for info in chosen if info.name in set(frame["run"])] if table == "models" else chosen
    mark = markable(shown, list(map(str, frame))) if table in (None, "models") else []
    if len({info.tags.get("aelab.data_fingerprint") for info in chosen}) > 1 and table in (None, "models"):
        left = "runs of other data than the newest evaluated one are left out" if table else "no best is marked"
        screen.warn(f"these runs were trained on different data: {left}")
    if json:
        screen.data({"runs": layout.records(frame), "pictures": [str(path) for path in written]})
    elif csv or markdown or latex:
        text = layout.csv(frame) if csv else layout.markdown(frame, mark) if markdown else layout.latex(frame, mark)
        screen.block(text.rstrip("\n"))
    else:
        screen.table(layout.cells(frame, "terminal", mark), right=layout.figures(frame))
        for path in written:
            screen.result(f"picture  {short(path)}")


def _chosen(store: "Store", names: "Sequence[str]", recipe: str | None, filter_: str) -> "list[RunInfo]":
    """The runs that were named, those of a sweep in its place; else all finished ones that fit."""
    if not names:
        found = [
            info for info in store.runs(filter_)
            if info.status == "FINISHED" and info.tags.get("aelab.kind") == "run" and recipe in (None, info.recipe)
        ]  # fmt: skip
    else:
        found = []
        for info in map(store.find, names):
            sweep = info.tags.get("aelab.kind") == "sweep"
            found += [each for each in reversed(store.runs()) if each.parent == info.id] if sweep else [info]
        fitting = {info.id for info in store.runs(filter_)} if filter_ else None
        found = [
            info for info in {info.id: info for info in found}.values()
            if recipe in (None, info.recipe) and (fitting is None or info.id in fitting)
        ]  # fmt: skip
    if not found:
        if recipe:
            recipe_files.find(recipe)  # raises where there is none of that name
        raise UserError("no finished run fits.", "See what is there: aelab runs")
    return found


def _frame(
    chosen: "list[RunInfo]", store: "Store", screen: "Screen", metrics: list[str], by: list[str], rows: str | None,
    columns: str | None, table: str | None,
) -> "pd.DataFrame":  # fmt: skip
    """The table that was asked for."""
    from aelab.evaluation.definitions import definition
    from aelab.results.compare import comparable, comparison, grouped, mixed, pivot
    from aelab.results.lecture import EMPTY, TABLES

    if (rows is None) != (columns is None) or (rows and (len(metrics) != 1 or by or table)):
        raise UserError("--rows and --columns go together, with one --metric.",
                      "aelab compare --rows latent_dim --columns recipe --metric test/sse", code=2)  # fmt: skip
    if table:
        if metrics or by:
            raise UserError(f"--table {table} has its own columns; leave out --metric and --group-by.", code=2)
        frame = TABLES[table](chosen, store.curve)
        if frame.empty:
            raise UserError(*EMPTY[table])
        shown = [info for info in chosen if "run" in frame and info.name in set(frame["run"])]
        comparable(shown, list(map(str, frame)), asked=True)
        return frame
    for name in metrics:
        if not any(name in info.metrics for info in chosen):
            near = sorted(
                {
                    key
                    for info in chosen
                    for key in info.metrics
                    if definition(key) == definition(name) and definition(key)
                }
            )
            hint = f"There are: {', '.join(near[:6])}" if near else "See which: aelab runs show RUN"
            raise UserError(f"none of these runs has a figure '{name}'.", hint, code=2)
    if metrics:
        having = [info for info in chosen if any(name in info.metrics for name in metrics)]
        if without := len(chosen) - len(having):
            screen.warn(f"{without} run{'s' * (without > 1)} without such a figure left out")
        chosen = having
    keys = [rows, columns] if rows and columns else by
    if metrics:
        comparable(chosen, metrics, asked=True)
    if rows and columns:
        frame = pivot(chosen, rows, columns, metrics[0])
    else:
        frame = grouped(chosen, by, metrics) if by else comparison(chosen, metrics)
    if keys and (hidden := mixed(chosen, keys)):
        screen.warn(f"the runs of one row differ in {', '.join(hidden)} too; their mean hides it")
    if rows and columns:
        return frame
    kept, reason = comparable(
        chosen, [name for name in map(str, frame) if "/" in name and not name.endswith(" sd")], asked=False
    )
    if reason:
        screen.warn(f"{reason}: their distances are left out")
    left_out = {name for name in map(str, frame) if "/" in name and name.removesuffix(" sd") not in kept}
    return frame.drop(columns=list(left_out))


def _drawn(chosen: "list[RunInfo]", curve: str, out: Path | None, store: "Store") -> list[Path]:
    """The figure of a metric over the training of all runs."""
    from aelab.figures import curves, save
    from aelab.results.compare import comparison, labels

    target = out or Path(f"compare-{curve.replace('/', '-')}.png")
    lines = {label: store.curve(info, curve) for label, info in zip(labels(comparison(chosen)), chosen, strict=True)}
    if missing := [label for label, points in lines.items() if not points]:
        raise UserError(f"there is no figure '{curve}' in {', '.join(missing)}.", "See which: aelab ui", code=2)
    save(target, curves(lines, curve))
    return [target]


def _sheets(
    chosen: "list[RunInfo]", named: "dict[str, RunInfo]", folder: Path, seed: int, data_dir: Path | None, device: str,
    store: "Store", screen: "Screen",
) -> list[Path]:  # fmt: skip
    """Contact sheets: the same test images through every run that reconstructs, and samples of every run that draws."""
    from aelab.evaluation.evaluate import eval_mode, reconstruct
    from aelab.figures import contact_sheet, save
    from aelab.recipe import Autoencodes, Generates
    from aelab.workflows import train as runs

    if len({info.tags.get("aelab.data_fingerprint") for info in chosen}) > 1:
        raise UserError("these runs were trained on different data, so they have no test images in common.", code=2)
    images, samples, truth = {}, {}, None
    for label, info in named.items():
        opened = runs.open_run(info, store, screen, device)
        if isinstance(opened.recipe, Autoencodes):
            if truth is None:
                truth = runs.run_data(opened, data_dir, screen).test.showcase(SHEET)
            images[label] = reconstruct(opened.recipe, truth)
        if isinstance(opened.recipe, Generates):
            with eval_mode(opened.recipe, seed):
                samples[label] = opened.recipe.decode(opened.recipe.sample_prior(SHEET)).cpu()
    written = []
    if truth is not None:
        sheet = contact_sheet({**images, "ground truth": truth}, "the same test images through each run")
        save(target := folder / "reconstructions.png", sheet)
        written.append(target)
    if samples:
        save(target := folder / "samples.png", contact_sheet(samples, f"samples, seed {seed}"))
        written.append(target)
    return written
