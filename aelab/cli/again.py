"""The verbs that take something up again: `resume` and `sync`."""

from typing import Annotated

import typer

from aelab.cli.options import DataDir, Force, Longer, Quiet, Uri, farewell, screen_for, store_for
from aelab.errors import UserError

verbs = typer.Typer()


@verbs.command()
def resume(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN]",
            help="Id, start of an id, name, recipe (its newest run that was stopped), folder, or models:/NAME@ALIAS.  "
            "(default: the newest run that was stopped)",
        ),
    ] = None,
    epochs: Longer = None,
    data_dir: DataDir = None,
    tracking_uri: Uri = None,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Go on with an interrupted run as if it had never stopped.

    It stays the same MLflow run and ends with the numbers of an uninterrupted one. With --epochs it becomes longer, a finished
    one too; under --schedule cosine it then ends otherwise than a run that was so long from the start.
    """
    from aelab.workflows import resume as resuming

    store = store_for(screen := screen_for(quiet), tracking_uri)
    info = resuming.chosen(run, store, screen, longer=epochs is not None)
    farewell(resuming.resume(info, store, screen, data_dir, epochs, force), store, screen)


@verbs.command()
def sync(tracking_uri: Uri = None, quiet: Quiet = False) -> None:
    """Send what a store has not had yet: what gathered while it was away, and the runs that were trained with --offline.

    What it has already is left out.
    """
    from aelab.tracking import NoStoreError, push, replay

    store = store_for(screen := screen_for(quiet), tracking_uri)
    sent, problems = 0, []
    try:
        here = store_for(screen, None, offline=True)
        sent += push(here, store, screen.note) if here.uri != store.uri else 0
    except NoStoreError:
        pass  # nothing was trained offline here
    except UserError as problem:
        problems.append(problem)
    try:
        sent += replay(store, screen.note)
    except UserError as problem:
        problems.append(problem)
    if sent or not problems:
        screen.result(f"{sent} run{'s' * (sent != 1)} sent to {store.shown_uri}")
    if problems:
        raise problems[0]
