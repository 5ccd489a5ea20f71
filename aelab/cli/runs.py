"""The verb `runs`: lists, shows, removes, exports and registers tracked runs."""

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aelab.cli.help import Group, Verb
from aelab.cli.options import DataDir, Filter, Json, Name, OfRecipe, Quiet, Uri, Verbose, console_for, short, store_for
from aelab.errors import UserError

if TYPE_CHECKING:
    from aelab.tracking import RunInfo

group = typer.Typer(cls=Group, subcommand_metavar="[COMMAND] [OPTIONS]")


@group.callback(invoke_without_command=True)
def runs(
    ctx: typer.Context,
    recipe: OfRecipe = None,
    filter_: Filter = "",
    tracking_uri: Uri = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """List the tracked runs; show, remove, export or register one.

    The newest run is first. The main metric is that of the validation images with the kept weights; best: the best by the
    recipe's monitored metric, last: the last ones, where nothing selects. A narrow terminal shows fewer columns.
    """
    if ctx.invoked_subcommand:
        return
    from aelab.results import LEAST_IMPORTANT, listing_row, shown_row
    from aelab.tracking import NoStoreError
    from aelab.workflows import listed

    console = console_for(quiet, verbose)
    try:
        store = store_for(tracking_uri)
    except NoStoreError as none:
        if tracking_uri or os.environ.get("MLFLOW_TRACKING_URI"):
            raise
        if json:
            console.data({"runs": []})
        for line in str(none).split("\n") if not json else ():
            console.note(line[0].upper() + line[1:])
        return
    found = listed(store, recipe, filter_)
    if json:
        console.data(
            {"runs": [{**listing_row(info), "id": info.id, "name": info.name, "parent": info.parent} for info in found]}
        )
    elif found:
        rows = [shown_row(info) for info in found]
        console.table(rows, right=["time"], drop=LEAST_IMPORTANT, shorten="name")
    elif recipe or filter_:
        console.note("There is no such run.")
    else:
        console.note(f"There are no runs in {store.shown_uri} yet. Start one: aelab train vae")


@group.command(cls=Verb)
def show(
    run: Name, tracking_uri: Uri = None, json: Json = False, quiet: Quiet = False, verbose: Verbose = False
) -> None:
    """Show a run: its options, its latest metrics, its diagnostics, and where its files are.

    Metrics of the training are means over the last epoch, or the validation after it (val) and with the kept weights (best,
    last); those of the test images stand beside a baseline and a control. --json also has the last window of steps.
    """
    from dataclasses import asdict

    from aelab.metrics import beside, duration
    from aelab.results import listing_row, training_rows

    console = console_for(quiet, verbose)
    store = store_for(tracking_uri)
    store.mark_dead()
    info = store.find(run)
    if json:
        console.data(asdict(info))
        return
    row = listing_row(info)
    facts = {"name": info.name, "id": info.id}
    facts |= {key: str(row[key]) for key in ("recipe", "status", "data", "started")}
    facts["time"] = duration(info.seconds)
    facts |= {name: info.tags.get(f"aelab.{name}", "") for name in ("diagnostics", "reason", "device", "version")}
    facts |= {"commit": info.tags.get("mlflow.source.git.commit", "")}
    facts["files"] = info.artifacts.removeprefix("file://")
    console.fields(facts, prose=["diagnostics", "reason"])
    if info.params:
        console.result("")
        console.table([{"option": key, "value": value} for key, value in info.params.items()], wrap="value")
    for rows, title in (
        (training_rows(info), "training and validation"),
        (
            beside({key: v for key, v in info.metrics.items() if key.startswith("test/")}),
            f"test images of {row['data']}",
        ),
    ):
        if rows:
            console.result("")
            console.metrics(rows, title)


@group.command(cls=Verb)
def rm(
    run: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="One or more runs, each by its id or the start of it, its name, or its folder."
        ),
    ],
    force: Annotated[
        bool, typer.Option("--force", help="Remove registered runs as well, with their registrations.")
    ] = False,
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Remove runs from the lists; a sweep with all its runs.

    MLflow keeps them until `mlflow gc`. The command to restore each is printed.
    """
    console = console_for(quiet, verbose)
    store = store_for(tracking_uri)
    store.mark_dead()
    wanted: dict[str, RunInfo] = {}
    for word, info in zip(run, map(store.find, run), strict=True):
        if word == info.recipe and word != info.name:
            raise UserError(
                f"{word} is a recipe; nothing was removed.", f"Name the run: aelab runs rm {info.name}", code=2
            )
        wanted |= {each.id: each for each in (info, *(child for child in store.runs() if child.parent == info.id))}
    if alive := [info.name for info in wanted.values() if info.status == "RUNNING"]:
        raise UserError(f"{alive[0]} is running; nothing was removed.", "Stop it first, with Ctrl-C.", code=2)
    for info in wanted.values():
        if not force and (models := store.models(info)):
            raise UserError(
                f"{info.name} is registered as {', '.join(models)}; nothing was removed.",
                "Remove it with its registration: --force",
                code=2,
            )
    for info in wanted.values():
        store.remove(info)
        console.result(f"removed {info.name}")
        console.note(f"restore  {store.restore_command(info)}")


@group.command(cls=Verb)
def export(
    run: Name,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
    format_: Annotated[
        Literal["pt2", "onnx"] | None,
        typer.Option(
            "--format",
            help="Write encoder, decoder and classifier as programs too, which load without the recipe: of torch.export "
            "(pt2) or ONNX (onnx).",
        ),
    ] = None,
    programs: Annotated[bool, typer.Option("--programs", hidden=True)] = False,
    data_dir: DataDir = None,
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Export a model into a folder that works without aelab.

    It holds weights, configuration, recipe, an example picture, and a model card with the code that loads it in plain
    PyTorch.
    """
    console = console_for(quiet, verbose)
    import aelab

    if programs:
        console.note("--programs is --format pt2 now")
        format_ = format_ or "pt2"
    for path in aelab.export(run, folder, format=format_, data_dir=data_dir, tracking_uri=tracking_uri):
        console.result(short(path))


@group.command(cls=Verb)
def register(
    run: Name,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the model in MLflow's registry.")],
    alias: Annotated[
        str, typer.Option(metavar="NAME", help="Alias by which this version of the model is found.")
    ] = "best",
    tracking_uri: Uri = None,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Register a run's model in MLflow under a name and an alias.

    Every verb then takes models:/NAME@ALIAS for the run.
    """
    from aelab.workflows import register as registered

    console = console_for(quiet, verbose)
    store = store_for(tracking_uri)
    info = store.find(run)
    if info.tags.get("aelab.kind") != "run":
        raise UserError(
            f"{info.name} is a {info.tags.get('aelab.kind', 'sweep')}; name one of its runs: aelab runs", code=2
        )
    version = registered(info, store, name, alias)
    console.result(f"models:/{name}@{alias}  is {info.name} (version {version})")
    console.next(f"aelab eval {shlex.quote(f'models:/{name}@{alias}')}{store.typed}")
