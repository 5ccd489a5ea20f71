"""The verb `compare`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aelab.cli.help import Verb
from aelab.cli.options import (
    LARGEST_SEED,
    DataDir,
    Device,
    Filter,
    OfRecipe,
    Quiet,
    Uri,
    Verbose,
    console_for,
    destination,
    short,
    store_for,
)
from aelab.errors import UserError

if TYPE_CHECKING:
    from aelab.cli.console import Console

verbs = typer.Typer()
FORMATS = "Format"  # a panel of --help

Runs = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN...]",
        help="Runs to compare, each by its id or the start of it, its name, its folder, or a recipe; a sweep stands for "
        "all its runs.",
        show_default="all finished runs",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", metavar="NAME", help="Show only this metric, such as test/mse; repeatable."),
]
GroupBy = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Average the runs that agree in this option of the training, such as latent_dim; repeatable.",
    ),
]
Rows = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Make a table with a row for each value of this option of the training; needs --columns and one --metric.",
    ),
]
Columns = Annotated[
    str | None, typer.Option(metavar="NAME", help="The columns of that table: one for each value of this option.")
]
Table = Annotated[
    Literal["latent", "labels", "noise", "losses", "models", "taxonomy"] | None,
    typer.Option(help="Print one of the lecture's tables, described above."),
]
Curve = Annotated[
    str | None,
    typer.Option(
        metavar="METRIC", help="Draw this metric over the training, one line a run, such as step/g_grad_norm."
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File for the picture of --curve, or of a sweep.",
        show_default="--curve: compare-METRIC.png",
    ),
]
Pictures = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER", help="Draw into this folder the same test images through each run, and samples of each."
    ),
]
PictureSeed = Annotated[
    int, typer.Option("--seed", min=0, max=LARGEST_SEED, help="Seed of the samples that --pictures draws.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the table as one JSON object.", rich_help_panel=FORMATS)]
Csv = Annotated[bool, typer.Option("--csv", help="Print the table as CSV.", rich_help_panel=FORMATS)]
Markdown = Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.", rich_help_panel=FORMATS)]
Latex = Annotated[bool, typer.Option("--latex", help="Print the table in LaTeX (booktabs).", rich_help_panel=FORMATS)]


def show_best(which: str, command: str, console: "Console", *more: str) -> None:
    """Shows the best point of a sweep, the command that trains it again, and `more` commands to type next."""
    if which:
        console.result(f"best  {which}", prose=True)
        more = (command, *more)
    console.next(*more)


@verbs.command(cls=Verb)
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
    json: AsJson = False,
    csv: Csv = False,
    markdown: Markdown = False,
    latex: Latex = False,
    seed: PictureSeed = 0,
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

    A sweep alone is averaged over its seeds, with a row for each combination of its options. --out draws its metric against
    one option, or over two; the best combination is printed as the command that trains it again.

    The tables of --table:

      latent    reconstruction error by latent dimension
      labels    classification error by number of labels
      noise     PSNR by noise level
      losses    minimax against non-saturating
      models    the newest run of each recipe
      taxonomy  generative models by their density: exact, bounded, estimated, none
    """
    console = console_for(quiet, verbose)
    if json + csv + markdown + latex > 1:
        raise UserError("give one of --json, --csv, --markdown, --latex.", code=2)
    if out:
        from aelab.figures import DRAWN

        out = destination(out, DRAWN)
    from aelab import results
    from aelab.workflows import choose, compared, sweep_named, swept

    store = store_for(tracking_uri)
    chosen = choose(store, run or [], recipe, filter_)
    sweep = None if group_by or rows or columns or table or curve else sweep_named(run or [], store)
    if out and not (curve or sweep):
        raise UserError("--out is for --curve, and for a sweep.", code=2)
    if sweep:
        comparison = swept(chosen, sweep, metric or [])
    else:
        comparison = compared(chosen, store, metric or [], group_by or [], rows, columns, table)
    written = []
    if sweep and out:
        from aelab.workflows import draw_sweep

        written.append(draw_sweep(comparison, out))
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
        if sweep:
            from aelab.workflows import best_of

            show_best(*best_of(comparison, store), console)
