"""The verb `show`."""

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import RUN, DataDir, Device, Quiet, Uri, Verbose, console_for, destination, short
from aelab.errors import UserError

verbs = typer.Typer()

Beside = Annotated[
    list[str] | None,
    typer.Option(
        "--beside", metavar="RUN", help="A further run to show in the same figure; may be given more than once."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the figure to this file, in the format of its suffix; without a FIGURE all of them to this folder.",
    ),
]


@verbs.command(cls=Verb)
def show(
    run: Annotated[str | None, typer.Argument(metavar="RUN", help=f"A run, {RUN}", show_default=False)] = None,
    figure: Annotated[
        str | None, typer.Argument(metavar="FIGURE", help="A figure of --list; without one all that this run can make.")
    ] = None,
    beside: Beside = None,
    list_: Annotated[
        bool, typer.Option("--list", help="List the figures: all, or those that this run can make.")
    ] = False,
    out: Out = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the figures with the program of this desktop.")] = False,
    data_dir: DataDir = None,
    device: Device = "auto",
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the figures of a run, for a slide, and show them in the terminal.

    Each is logged to the run under figures/ as a PNG and an SVG, samples-over-training as an animated GIF too. Terminals that
    can show images (kitty, iTerm2 and others with Sixel) show them as they are, others with coloured blocks.
    """
    console = console_for(quiet, verbose)
    from aelab.figures import FIGURES, available, summary

    if list_:
        names = list(FIGURES)
        if run:
            import aelab

            names = available(aelab.load(run, device=device, data_dir=data_dir, tracking_uri=tracking_uri))
        console.table([{"figure": name, "shows": summary(name)} for name in names], wrap="shows")
        return
    if run is None:
        raise UserError("name a run.", "List the runs: aelab runs, and the figures: aelab show --list", code=2)
    if open_ and sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise UserError("--open: there is no desktop here.", "Without --open the command names the files.", code=2)
    import aelab
    from aelab.figures import ANIMATIONS, DRAWN

    if figure:
        out = destination(out, (*DRAWN, ".gif") if figure in ANIMATIONS else DRAWN)
    elif out and out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; without a FIGURE name a folder.", code=2)
    made = aelab.show(
        run, figure, beside=beside or [], out=out, device=device, data_dir=data_dir, tracking_uri=tracking_uri
    )
    if not made:
        console.note(f"{run} can make none of the figures; see aelab show --list")
    for name, (png, *_) in made.items():
        console.image(png, name)
        console.result(f"figure   {short(out if out and figure else png)}")
        if open_:
            typer.launch(str(png))
    if not figure and len(made) > 1:
        console.next(f"aelab show {shlex.quote(run)} {next(iter(made))}")
