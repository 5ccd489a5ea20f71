"""The verb `interpolate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aelab.cli.options import DataDir, Device, Name, Quiet, Seed, Uri, Verbose, console_for, destination, short

verbs = typer.Typer()

Paths = Annotated[Literal["linear", "spherical", "both"], typer.Option(help="The path from code to code.")]
File = Annotated[
    Path | None,
    typer.Option(help="Also write the picture to this file; with --path both to NAME-linear and NAME-spherical."),
]


@verbs.command()
def interpolate(
    run: Name,
    path: Paths = "both",
    pairs: Annotated[int, typer.Option(min=1, max=100, help="Pairs of codes.")] = 6,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images per pair, both ends included.")] = 10,
    out: File = None,
    seed: Seed = 0,
    data_dir: DataDir = None,
    device: Device = "auto",
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Interpolate between codes, and draw the images along the path.

    The ends are codes of test images or, without an encoder, draws from the prior.
    """
    console = console_for(quiet, verbose)
    import aelab
    from aelab.figures import WRITTEN

    drawings = aelab.interpolate(
        run,
        path=path,
        pairs=pairs,
        steps=steps,
        seed=seed,
        out=destination(out, WRITTEN),
        device=device,
        data_dir=data_dir,
        tracking_uri=tracking_uri,
    )
    for drawing in drawings.values():
        console.result(f"picture  {short(drawing.path)}")
