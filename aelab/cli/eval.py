"""The verb `eval`."""

from pathlib import Path
from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import (
    MANY,
    DataDir,
    Device,
    Json,
    Names,
    Quiet,
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
    typer.Option(
        min=0,
        max=MANY,
        help="Codes drawn for each image to estimate log p(x) by importance sampling; more are more exact and slower. "
        "0 leaves out every likelihood that has to be estimated.",
        show_default="500; 0 with --plain or --set",
    ),
]
Images = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MANY,
        help="Estimate log p(x) with so many of the test images, evenly spaced.",
        show_default="all test images",
    ),
]
AtOnce = Annotated[
    int,
    typer.Option(
        min=1,
        max=MANY,
        help="Images that are computed at a time: fewer take less memory, and the metrics stay the same (to 1e-6).",
    ),
]
Inception = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Weights of torchvision's inception_v3; samples and real images are then compared by its features too.",
    ),
]
Plain = Annotated[
    bool,
    typer.Option(
        "--plain",
        help="Measure only the terms of the loss, an exact likelihood and the reconstructions: quick, for many runs.",
    ),
]
Figures = Annotated[
    bool,
    typer.Option(
        "--figures/--no-figures", help="Make the figures of the run too, as `aelab show` does; not with --plain."
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Evaluate the same weights with this value of an option of the recipe, such as level=0.25; repeatable.",
    ),
]
Force = Annotated[
    bool, typer.Option("--force", help="Evaluate even if the images are not those that the model was trained with.")
]


@verbs.command("eval", cls=Verb)
def evaluate(
    run: Names,
    samples: Samples = None,
    images: Images = None,
    batch_size: AtOnce = 250,
    inception: Inception = None,
    plain: Plain = False,
    figures: Figures = True,
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
            figures=figures,
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
            for folder in {files[0].parent for files in done.figures.values()}:
                console.result(f"figures  {short(folder)}: {', '.join(done.figures)}")
    if json:
        console.data({"runs": answers})
