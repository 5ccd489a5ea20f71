"""The verb `sync`."""

import logging

import typer

from aelab.cli.help import Verb
from aelab.cli.options import Quiet, Uri, Verbose, console_for, store_for
from aelab.errors import UserError

verbs = typer.Typer()


@verbs.command(cls=Verb)
def sync(tracking_uri: Uri = None, quiet: Quiet = False, verbose: Verbose = False) -> None:
    """Send to the MLflow store what it has not had yet.

    That is what was logged while it did not answer, and the runs that were trained with --offline.
    """
    console = console_for(quiet, verbose)
    from aelab.tracking import NoStoreError, push, replay

    note = logging.getLogger("aelab").info
    store = store_for(tracking_uri)
    sent, problems = 0, []
    try:
        here = store_for(None, offline=True)
        sent += push(here, store, note) if here.uri != store.uri else 0
    except NoStoreError:
        pass  # no run was trained offline here
    except UserError as problem:
        problems.append(problem)
    try:
        sent += replay(store, note)
    except UserError as problem:
        problems.append(problem)
    if sent or not problems:
        console.result(f"{sent} run{'s' * (sent != 1)} sent to {store.shown_uri}")
    if problems:
        raise problems[0]
