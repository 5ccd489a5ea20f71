"""The verb `sample`."""

from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import (
    LARGEST_SEED,
    DataDir,
    Device,
    Name,
    Out,
    Quiet,
    Uri,
    Verbose,
    console_for,
    destination,
    short,
)

verbs = typer.Typer()


@verbs.command(cls=Verb)
def sample(
    run: Name,
    n: Annotated[
        int | None,
        typer.Option(
            "-n",
            min=1,
            max=10_000,
            help="Number of images to draw; with --label all, of each class.",
            show_default="64; 10 with --label all",
        ),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="Draw images of this class, or of each with `all`; for a model with --conditional."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of the codes: the same seed draws the same images.")
    ] = 0,
    out: Out = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Draw codes from the prior and decode them into a grid of images."""
    console = console_for(quiet, verbose)
    import aelab
    from aelab.figures import WRITTEN

    out = destination(out, WRITTEN)
    drawing = aelab.sample(
        run, n, label=label, seed=seed, out=out, device=device, data_dir=data_dir, tracking_uri=tracking_uri
    )
    console.result(f"picture  {short(drawing.path)}")
