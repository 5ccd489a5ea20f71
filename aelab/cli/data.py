"""The verb `data`."""

from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import DataDir, Quiet, console_for
from aelab.errors import UserError

verbs = typer.Typer()


@verbs.command(cls=Verb)
def data(
    fetch: Annotated[
        str | None, typer.Option(metavar="NAME", help="Download this data set: mnist, fashion-mnist, cifar10 or lfw.")
    ] = None,
    data_dir: DataDir = None,
    quiet: Quiet = False,
) -> None:
    """List the data sets and where they are, or download one."""
    console = console_for(quiet)
    from aelab.data import DOWNLOADABLE, listing, obtain

    if fetch is None:
        console.table(listing(data_dir), drop=["here"])
        return
    if fetch not in DOWNLOADABLE:
        names = ", ".join(DOWNLOADABLE)
        raise UserError(f"'{fetch}' is not a data set that can be downloaded: {names}.", code=2)
    console.result(f"{fetch} is in {obtain(DOWNLOADABLE[fetch], data_dir).place}")
