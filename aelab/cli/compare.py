"""The verb `compare`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aelab.cli.options import (
    DataDir,
    Device,
    Filter,
    Json,
    OfRecipe,
    Quiet,
    Seed,
    Uri,
    Verbose,
    console_for,
    destination,
    short,
    store_for,
)
from aelab.errors import UserError

verbs = typer.Typer()
FORMATS = "Format"  # a panel of --help

Runs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RUN...]", help="Runs; a sweep stands for all its runs.  (default: all finished runs)"),
]
Metrics = Annotated[list[str] | None, typer.Option("--metric", help="A metric to show, such as test/mse; repeatable.")]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(help="An option, such as latent_dim: average the runs that agree in it; repeatable."),
]
Rows = Annotated[str | None, typer.Option(help="An option whose values are the rows, with --columns and one --metric.")]
Columns = Annotated[str | None, typer.Option(help="An option whose values are the columns.")]
Table = Annotated[
    Literal["latent", "labels", "noise", "losses", "models"] | None, typer.Option(help="A standard table, by its name.")
]
Curve = Annotated[
    str | None, typer.Option(metavar="METRIC", help="Draw this metric over the training, such as step/g_grad_norm.")
]
File = Annotated[Path | None, typer.Option(help="File of that picture.  (default: compare-METRIC.png)")]
Pictures = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Draw the same test images through each run, and samples of each, into this folder."
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="The table in CSV.", rich_help_panel=FORMATS)]
Markdown = Annotated[bool, typer.Option("--markdown", help="The table in Markdown.", rich_help_panel=FORMATS)]
Latex = Annotated[bool, typer.Option("--latex", help="The table in LaTeX (booktabs).", rich_help_panel=FORMATS)]


@verbs.command()
def compare(
    run: Runs = None,
    recipe: OfRecipe = None,
    filter_: Filter = "",
    metric: Metrics = None,
    group_by: GroupBy = None,
    rows: Rows = None,
    columns: Columns = None,
    table: Table = None,
    curve: Curve = None,
    out: File = None,
    pictures: Pictures = None,
    json: Json = False,
    csv: Csv = False,
    markdown: Markdown = False,
    latex: Latex = False,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "auto",
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Compare tracked runs side by side.

    Shows the options in which they differ, and their metrics: those of the test set if all of them have been evaluated, else
    those of the validation set. The best value of a column is marked with a star; errors of reconstructions only if all
    codes have the same size. A table that is too wide for the terminal is turned, with a column for each run, or printed in
    parts; a file or a pipe gets it whole.

    Tables: latent, error by code size; labels, error by number of labels; noise, PSNR by noise level; losses, minimax and
    non-saturating; models, the newest run of each recipe.
    """
    console = console_for(quiet, verbose)
    if out and not curve:
        raise UserError("--out is for --curve.", code=2)
    if json + csv + markdown + latex > 1:
        raise UserError("give one of --json, --csv, --markdown, --latex.", code=2)
    if curve:
        from aelab.figures import DRAWN

        out = destination(out, DRAWN)
    from aelab import results
    from aelab.workflows import choose, compared

    store = store_for(tracking_uri)
    chosen = choose(store, run or [], recipe, filter_)
    comparison = compared(chosen, store, metric or [], group_by or [], rows, columns, table)
    written = []
    if curve:
        from aelab.workflows import draw_curve

        written.append(draw_curve(comparison, curve, out, store))
    if pictures:
        from aelab.workflows import draw_sheets

        written += draw_sheets(comparison, pictures, store, seed=seed, data_dir=data_dir, device=device)
    frame, mark = comparison.frame, comparison.markable
    if json:
        console.data({"runs": results.records(frame), "pictures": [str(path) for path in written]})
    elif csv or markdown or latex:
        text = results.csv(frame) if csv else (results.markdown if markdown else results.latex)(frame, mark)
        console.block(text.rstrip("\n"))
    else:
        console.table(
            results.cells(frame, "terminal", mark),
            right=results.number_columns(frame),
            shorten="run",
            turn=True,
            marked=[name for name in map(str, frame) if "/" in name],
        )
        for path in written:
            console.result(f"picture  {short(path)}")
