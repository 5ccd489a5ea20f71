"""The verb `lecture`."""

from pathlib import Path
from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import LARGEST_SEED, DataDir, Json, Quiet, TrainingDevice, Uri, Verbose, console_for, short
from aelab.errors import UserError

verbs = typer.Typer()

Quick = Annotated[
    bool,
    typer.Option("--quick", help="Train on the bundled 5,000 images, for few epochs: minutes instead of hours."),
]
Folder = Annotated[Path, typer.Option(metavar="FOLDER", help="Folder for the page and the figures.")]
Only = Annotated[
    list[str] | None,
    typer.Option(
        metavar="TOPICS",
        help="Only these topics, such as vae,gan; a name also means those that begin with it and a dash.",
    ),
]
Slides = Annotated[
    bool, typer.Option("--slides", help="Write slides.html too: one topic a screen, for the arrow keys.")
]
Colour = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Folder of colour pictures of one size, in the place of CIFAR-10."),
]
FirstSeed = Annotated[
    int,
    typer.Option("--seed", min=0, max=LARGEST_SEED - 10, help="Seed of all trainings; of several, that of the first."),
]


@verbs.command(cls=Verb)
def lecture(
    quick: Quick = False,
    out: Folder = Path("lecture"),
    only: Only = None,
    slides: Slides = False,
    seed: FirstSeed = 0,
    data_dir: DataDir = None,
    colour: Colour = None,
    device: TrainingDevice = "auto",
    tracking_uri: Uri = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Make the whole lecture: train its models, draw every figure, and write one page that works offline.

    Models that are there already are used as they are, so the same command continues where it was stopped, and a second time
    trains nothing. It says beforehand how long it takes: with --quick minutes, else hours on a CPU. What fails is said on the
    page, and the rest is made.
    """
    console = console_for(quiet, verbose)
    import aelab

    names = [name.strip() for part in only or [] for name in part.split(",") if name.strip()]
    if only and not names:
        raise UserError("--only names no topic.", "Without it all topics are made.", code=2)
    made = aelab.make_lecture(
        out,
        quick=quick,
        only=names,
        slides=slides,
        seed=seed,
        device=device,
        data_dir=data_dir,
        colour=colour,
        tracking_uri=tracking_uri,
    )
    if json:
        files = {"page": str(made.page), "slides": str(made.slides) if made.slides else None}
        figures = [str(path) for path in made.figures]
        console.data({**files, "figures": figures, "failed": made.failed, "skipped": made.skipped})
    else:
        console.result(f"figures  {short(made.page.parent / 'figures')}")
        for page in (made.page, made.slides):
            if page:
                console.result(f"page     {short(page)}")
    if made.failed:
        raise UserError(
            f"{len(made.failed)} of the lecture's models and figures failed; the page says why.", *made.failed[:2]
        )
