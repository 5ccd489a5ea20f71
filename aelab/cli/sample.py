"""The verb `sample`."""

from typing import Annotated

import typer

from aelab.cli.options import Device, Name, Out, Quiet, Seed, Uri, Verbose, console_for, destination, short

verbs = typer.Typer()


@verbs.command()
def sample(
    run: Name,
    n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="Number of images.")] = 64,
    seed: Seed = 0,
    out: Out = None,
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
    drawing = aelab.sample(run, n, seed=seed, out=out, device=device, tracking_uri=tracking_uri)
    console.result(f"picture  {short(drawing.path)}")
