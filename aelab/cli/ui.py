"""The verb `ui`."""

from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import Uri, console_for, store_for

verbs = typer.Typer()


@verbs.command(cls=Verb)
def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port of this machine at which the pages are served.")
    ] = 5000,
    browser: Annotated[bool, typer.Option(help="Open the pages in a web browser.")] = True,
    tracking_uri: Uri = None,
) -> None:
    """Browse the runs in MLflow's web pages."""
    console = console_for()
    import webbrowser

    from aelab import tracking

    store = store_for(tracking_uri)
    if store.uri.startswith(("http://", "https://")):
        console.result(page := store.page(store.experiment(None), store.uri))
        if browser:
            webbrowser.open(page)
        return
    page = store.page(store.experiment(None), f"http://127.0.0.1:{port}")
    with tracking.served(store, port) as server:
        console.result(page)
        console.note("Ctrl-C stops the server.")
        if browser:
            webbrowser.open(page)
        try:
            server.wait()
        except KeyboardInterrupt:
            return
