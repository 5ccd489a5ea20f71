"""The verb `resume`, and the output at the end of a training."""

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import MANY, DataDir, Quiet, Uri, Verbose, console_for, short

if TYPE_CHECKING:
    from aelab.cli.console import Console
    from aelab.workflows import Run

verbs = typer.Typer()
MAX_NAME = 40  # characters: a run with a longer name is named by its id in a command to copy

Longer = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MANY,
        help="Lengthen the run, even a finished one, to so many epochs; phases with a number of their own keep it.",
        show_default="the run's own",
    ),
]
Force = Annotated[
    bool,
    typer.Option(
        "--force", help="Continue even if the recipe, the images or the versions of the packages have changed."
    ),
]


@verbs.command(cls=Verb)
def resume(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="The run to continue, by its id or the start of it, its name, its folder, models:/NAME@ALIAS, or a recipe, "
            "meaning its newest run that was stopped.",
            show_default="the newest run that was stopped",
        ),
    ] = None,
    epochs: Longer = None,
    data_dir: DataDir = None,
    tracking_uri: Uri = None,
    force: Force = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Continue an interrupted run as if it had never stopped.

    It stays the same MLflow run, and ends with the same numbers as an uninterrupted one. --epochs lengthens a run, even a
    finished one; if its learning rate has begun to fall, by --schedule linear or cosine, it then differs from a run that
    was that long from the start.
    """
    console = console_for(quiet, verbose)
    import aelab

    show_trained(aelab.resume(run, epochs=epochs, force=force, data_dir=data_dir, tracking_uri=tracking_uri), console)


def show_trained(run: "Run", console: "Console") -> None:
    """Shows the end of a training: its metrics, where its pictures are, and what to type next."""
    from aelab.metrics import duration, in_a_line
    from aelab.results import short_diagnosis

    alone = len(run.name) <= MAX_NAME and len(run.store.named(run.name)) == 1
    known_as = shlex.quote(run.name) if alone else run.id[:8]
    of_the_recipe = [key.removeprefix("train/") for key in run.metrics if key.startswith("train/")]
    losses = in_a_line(run.validation, run.info.kept, of_the_recipe)
    console.result(f"{run.name} finished in {duration(run.info.seconds)}  {losses}", prose=True)
    diagnosis = short_diagnosis(run.info)
    console.result(f"diagnosis  {diagnosis}" + ": no fault was found" * (diagnosis == "good"))
    for path in run.pictures:
        console.result(f"picture  {short(path)}")
    if run.could_be_conditional:
        console.note(f"images of a class that you ask for: {run.conditional_command}")
    of_each_class = {"sample": " --label all"} if run.conditional else {}
    typed = [f"aelab {verb} {known_as}{of_each_class.get(verb, '')}{run.store.typed}" for verb in run.verbs]
    console.next(*typed, f"aelab ui{run.store.typed}")
