"""The verb `eval`."""

from pathlib import Path
from typing import Annotated

import typer

from aelab.cli.options import (
    MANY,
    DataDir,
    Device,
    Force,
    Json,
    Names,
    Quiet,
    Set,
    Uri,
    Verbose,
    assignments,
    console_for,
    short,
    store_for,
)

verbs = typer.Typer()

Samples = Annotated[
    int | None,
    typer.Option(min=0, max=MANY, help="Importance samples per image.  (default: 500; 0 with --plain or --set)"),
]
Images = Annotated[
    int | None, typer.Option(min=1, max=MANY, help="Test images for these samples, evenly spaced.  (default: all)")
]
AtOnce = Annotated[int, typer.Option(min=1, max=MANY, help="Images at once; no metric depends on it (to 1e-6).")]
Inception = Annotated[
    Path | None, typer.Option(help="Weights of torchvision's inception_v3, for distances of samples in its features.")
]
Plain = Annotated[bool, typer.Option("--plain", help="Loss terms and reconstructions only: quick, for many runs.")]


@verbs.command("eval")
def evaluate(
    run: Names,
    samples: Samples = None,
    images: Images = None,
    batch_size: AtOnce = 250,
    inception: Inception = None,
    plain: Plain = False,
    set_: Set = None,
    data_dir: DataDir = None,
    device: Device = "auto",
    tracking_uri: Uri = None,
    force: Force = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Evaluate a model on the test images, each metric beside a baseline and a control.

    The metrics depend on what the model can do: reconstruct, encode, sample, classify, or compute a likelihood. Metrics and
    pictures are logged to the run.

    With --set the same weights are evaluated with another option, such as --set level=0.25 for a denoising autoencoder. The
    metrics are those of --plain, logged under test/NAME-VALUE/.

    The likelihood takes long (--samples, --images), and so does the first evaluation of samples on a data set, which trains
    its classifier and evaluates real images, once.
    """
    console = console_for(quiet, verbose)
    import aelab
    from aelab.workflows import configuration

    store = store_for(tracking_uri)
    answers = []
    for info in [store.find(name) for name in run]:  # find all of them before evaluating the first
        done = aelab.evaluate(
            info.id,
            samples=samples,
            images=images,
            batch_size=batch_size,
            inception_weights=inception,
            plain=plain,
            options=assignments(configuration(info, store)[1], set_ or []),
            force=force,
            device=device,
            data_dir=data_dir,
            tracking_uri=tracking_uri,
        )
        report = done.report
        answers.append(
            {
                "run": info.name,
                "id": info.id,
                "data": done.data,
                "images": done.images,
                "metrics": report.metrics,
                "notes": report.notes,
            }
        )
        if not json:
            console.metrics(report.table(), f"{info.name} on {done.images:,} test images of {done.data}")
            for note in report.notes:
                console.note(f"note     {note}")
            for path in done.pictures:
                console.result(f"picture  {short(path)}")
    if json:
        console.data({"runs": answers})
