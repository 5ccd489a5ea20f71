"""The verb `recipes`."""

import typer

from aelab import recipe_files
from aelab.cli.help import Verb
from aelab.cli.options import Json, console_for, short

verbs = typer.Typer()


@verbs.command(cls=Verb)
def recipes(json: Json = False) -> None:
    """List the recipes: those of the lecture, and those in ./recipes."""
    console = console_for()
    rows = [
        {"recipe": recipe_file.name, "what": recipe_file.summary, "file": short(recipe_file.path)}
        for recipe_file in recipe_files.available().values()
    ]
    if json:
        console.data({"recipes": rows})
    else:
        console.table(rows, drop=["file"], wrap="what")
