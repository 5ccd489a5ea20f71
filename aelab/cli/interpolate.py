"""The verb `interpolate`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from aelab.cli.help import Verb
from aelab.cli.options import LARGEST_SEED, DataDir, Device, Name, Quiet, Uri, Verbose, console_for, destination, short

verbs = typer.Typer()

Paths = Annotated[
    Literal["linear", "spherical", "both"],
    typer.Option(help="Path from one code to the other: a line, a great arc, or both."),
]
Vary = Annotated[
    Literal["class", "style", "both"],
    typer.Option(
        help="What changes along the path, for a model with --conditional: its class, all but its class, or both."
    ),
]
Start = Annotated[
    int,
    typer.Option(
        "--seed", min=0, max=LARGEST_SEED, help="Seed of the pairs: which test images, or which codes from the prior."
    ),
]
File = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Also write the picture to this file; with --path both two of them, NAME-linear and NAME-spherical.",
    ),
]


@verbs.command(cls=Verb)
def interpolate(
    run: Name,
    path: Paths = "both",
    vary: Vary = "both",
    pairs: Annotated[int, typer.Option(min=1, max=100, help="Pairs of codes, each a row of the picture.")] = 6,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images in a row, both ends included.")] = 10,
    out: File = None,
    seed: Start = 0,
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
        vary=vary,
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
