"""The verbs that train: `train`, with one command a recipe made from its signature, and `compare-latent`."""

import inspect
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer
from typer.core import TyperGroup

from aelab import recipe_files
from aelab.cli.again import resume
from aelab.cli.options import (
    EXIT_CODES,
    LARGEST_SEED,
    MANY,
    TRACKING,
    BatchSize,
    Data,
    DataDir,
    Device,
    Ema,
    Epochs,
    Experiment,
    ImageSize,
    Json,
    LearningRateSchedule,
    MaxSteps,
    Offline,
    Patience,
    Precision,
    Quiet,
    Resume,
    Seed,
    Set,
    SkipBad,
    SkipNonfinite,
    SplitSeed,
    Start,
    Uri,
    Warmup,
    assignments,
    farewell,
    screen_for,
    short,
    store_for,
)
from aelab.errors import UserError, visible

if TYPE_CHECKING:
    from aelab.console import Screen
    from aelab.recipe_files import Option, RecipeFile
    from aelab.workflows.config import Config

RECIPES_OWN = ("epochs", "batch_size", "ema", "schedule", "warmup")  # settings for which a recipe has a default

verbs = typer.Typer()


def train(page: "RecipeFile", values: dict[str, Any], typed: set[str]) -> None:
    """Trains a recipe: `values` are the engine's options and the recipe's, of which some were `typed`."""
    from aelab.workflows import resume as resuming
    from aelab.workflows import train as runs

    screen = screen_for(values.pop("quiet"))
    resumed, offline = values.pop("resume"), values.pop("offline")
    epochs = values["epochs"] if "epochs" in typed else None
    places = {key: values.pop(key) for key in ("tracking_uri", "experiment", "name", "data_dir")}
    if resumed:
        store = store_for(screen, places["tracking_uri"], offline)
        info = resuming.chosen(resumed, store, screen, longer=epochs is not None)
        named = places["name"] if "name" in typed else info.name
        before = runs.configuration(info, store, screen)[0]
        _refuse_changes(before, page, info.name, {**values, "name": named}, typed)
        outcome = resuming.resume(info, store, screen, places["data_dir"], epochs)
        return farewell(outcome, store, screen)
    config = _config(page, values)
    data = runs.open_config_data(config, places["data_dir"], screen)
    if epochs is None:
        config = replace(config, settings=config.settings.long_enough(len(data.train)))
    store = store_for(screen, places["tracking_uri"], offline, create=True)
    left = resuming.unfinished(config, page, data, store)
    if left and _shall_resume(left.name, left.id, screen):
        return farewell(resuming.resume(left, store, screen, places["data_dir"]), store, screen)
    outcome = runs.start(config, store, screen, data=data, experiment=places["experiment"], name=places["name"])
    return farewell(outcome, store, screen)


def _shall_resume(name: str, run_id: str, screen: "Screen") -> bool:
    """Asks whether to go on with the run of the same command that was stopped; where nobody can answer, says how."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        screen.warn(
            f"{name} of the same command was stopped; this is a new run. Go on with that: aelab resume {run_id[:8]}"
        )
        return False
    return typer.confirm(f"{visible(name)} of the same command was stopped. Go on with it?", default=True, err=True)


def _refuse_changes(before: "Config", page: "RecipeFile", name: str, values: dict[str, Any], typed: set[str]) -> None:
    """Raises UserError, with the differences, if options were typed that are not those of the run that is resumed."""
    defaults = {option.name: option.default for option in recipe_files.options(recipe_files.load(page))}
    was = {**defaults, **before.options, **asdict(before.settings), "data": before.data, "image_size": before.image_size,
           "split_seed": before.split_seed, "skip_bad": before.skip_bad, "name": name}  # fmt: skip
    changed = [
        f"--{key.replace('_', '-')} {values[key]}, was {was[key]}"
        for key in sorted((typed | {"name"}) & was.keys() - {"epochs", "device"})
        if values[key] != was[key] and (key, values[key]) != ("data", "auto")
    ]
    if Path(before.recipe).stem != page.name:
        changed.insert(0, f"recipe {page.name}, was {Path(before.recipe).stem}")
    if changed:
        raise UserError(
            f"{name} was begun with other options: {'; '.join(changed)}.", "Leave them out to go on.", code=2
        )


def _config(page: "RecipeFile", values: dict[str, Any]) -> "Config":
    """The configuration that the typed values mean; what is left of them are the recipe's options."""
    from aelab.training.settings import Settings
    from aelab.workflows.config import Config

    usual = recipe_files.signature(page).settings
    own = {key: usual[key] if (value := values.pop(key)) is None else value for key in RECIPES_OWN}
    settings = Settings(
        **own,
        **{key: values.pop(key) for key in ("seed", "device", "precision", "max_steps", "patience", "skip_nonfinite")},
    )
    given = {key: values.pop(key) for key in ("data", "image_size", "split_seed", "start", "skip_bad")}
    typed = str(page.path) if page.path != getattr(recipe_files.available().get(page.name), "path", None) else page.name
    return Config(typed, settings, values, **given)


def _train_command(page: "RecipeFile") -> Any:
    """The command `train NAME`, made from the engine's options and the signature of the recipe."""
    signature = recipe_files.signature(page)
    usual = signature.settings
    common = [p.replace(default=usual.get(p.name, p.default)) for p in inspect.signature(_common).parameters.values()]
    taken = {parameter.name for parameter in common}
    for option in signature.options:
        if option.name in taken:
            raise UserError(f"{page.path}: the option '{option.name}' is one of aelab's own; give it another name.")

    def command(context: typer.Context, **values: Any) -> None:
        typed = {name for name in values if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        train(page, values, typed)

    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [first, *map(_parameter, signature.options), *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    doc = signature.doc or page.name
    single.command(name=page.name, help="\b\n" + doc.replace("\n\n", "\n\n\b\n"), epilog=EXIT_CODES)(command)
    return typer.main.get_command(single)


def _common(
    *, epochs: Epochs = None, batch_size: BatchSize = None, seed: Seed = 0, data: Data = "auto", data_dir: DataDir = None,
    image_size: ImageSize = None, skip_bad: SkipBad = False, split_seed: SplitSeed = 0, device: Device = "auto",
    precision: Precision = "float32", max_steps: MaxSteps = None, patience: Patience = None, ema: Ema = None,
    schedule: LearningRateSchedule = None, warmup: Warmup = None, skip_nonfinite: SkipNonfinite = 0, start: Start = None,
    resume: Resume = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.  (default: RECIPE-xxxxxx)", rich_help_panel=TRACKING)] = None,
    experiment: Experiment = None, tracking_uri: Uri = None, offline: Offline = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Carries the options that every recipe's command has."""


def _parameter(option: "Option") -> inspect.Parameter:
    """A recipe's option as a parameter that typer understands."""
    panel = "Recipe"
    if option.type is bool or get_origin(option.type) is Literal:
        hint: Any = Annotated[option.type, typer.Option(help=option.help, rich_help_panel=panel)]
        return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hint)
    default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    parsed = typer.Option(parser=_parser(option), metavar=option.metavar, help=option.help, rich_help_panel=panel)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[Any, parsed]
    )


def _parser(option: "Option") -> Callable[[Any], Any]:
    def parse(text: Any) -> Any:
        if not isinstance(text, str):
            return text  # the default
        try:
            return option.parse(text)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error

    return parse


def _single(verb: Callable[..., None]) -> typer.Typer:
    """A verb as an application of its own."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(epilog=EXIT_CODES)(verb)
    return single


class Recipes(TyperGroup):
    """The group `train`: a command for every recipe, whose file is only run when it is the one that is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(recipe_files.available())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        page = recipe_files.find(cmd_name)
        stub = typer.Typer(add_completion=False)
        stub.command(name=page.name, help=page.summary)(lambda: None)
        return typer.main.get_command(stub)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        resumed = args and args[0].partition("=")[0] == "--resume"
        return super().parse_args(ctx, ["--", *args] if resumed else args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0].partition("=")[0] == "--resume":  # the run knows its recipe
            _, equals, name = args[0].partition("=")
            return "resume", typer.main.get_command(_single(resume)), [name, *args[1:]] if equals else args[1:]
        if args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        return args[0], _train_command(recipe_files.trust(args[0])), args[1:]


verbs.add_typer(
    typer.Typer(cls=Recipes, help="Train a recipe: a name, or a path such as ./mine.py.", no_args_is_help=True,
                subcommand_metavar="RECIPE [OPTIONS] | --resume RUN"),
    name="train",
)  # fmt: skip


@verbs.command("compare-latent")
def compare_latent(
    dimensions: Annotated[list[int], typer.Argument(metavar="D...", min=1, max=MANY, help="Latent dimensions, such as 2 5 10.")],
    recipe: Annotated[str, typer.Option(help="Name or path of a recipe that reconstructs and has latent_dim.")] = "stacked",
    seeds: Annotated[int, typer.Option(min=1, max=10_000, help="Runs a dimension, with the seeds --seed, --seed + 1, ...")] = 1,
    jobs: Annotated[int, typer.Option(min=1, max=10_000, help="Runs that are trained at once, each in a process.")] = 1,
    set_: Set = None,
    epochs: Epochs = None, batch_size: BatchSize = None, seed: Seed = 0, data: Data = "auto", data_dir: DataDir = None,
    image_size: ImageSize = None, skip_bad: SkipBad = False, split_seed: SplitSeed = 0, device: Device = "auto",
    precision: Precision = "float32", max_steps: MaxSteps = None, patience: Patience = None, ema: Ema = None,
    schedule: LearningRateSchedule = None, warmup: Warmup = None, skip_nonfinite: SkipNonfinite = 0,
    experiment: Experiment = None, tracking_uri: Uri = None, offline: Offline = False, json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train one run a latent dimension and seed, and compare their errors.

    The table holds the reconstruction error on the test set, mean and standard deviation over seeds, with the PCA of the same
    code size beside it; curve, contact sheet and table (CSV, Markdown, LaTeX) are logged on a parent run. Runs that are done
    already are not trained again: the same command goes on where it was stopped.
    """
    import pandas as pd

    from aelab.results import formats as layout
    from aelab.workflows import sweep
    from aelab.workflows import train as runs

    page = recipe_files.trust(recipe)
    options = assignments(page, set_ or [])
    if "latent_dim" in options:
        raise UserError(
            "--set latent_dim: the dimensions are the arguments, such as aelab compare-latent 2 5 10", code=2
        )
    if seed + seeds - 1 > LARGEST_SEED:
        raise UserError(
            f"--seeds {seeds}: the last of them would be {seed + seeds - 1}; {LARGEST_SEED} is the largest.", code=2
        )
    screen = screen_for(quiet)
    values: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "seed": seed, "data": data, "image_size": image_size,
        "split_seed": split_seed, "device": device, "precision": precision, "max_steps": max_steps, "patience": patience,
        "ema": ema, "schedule": schedule, "warmup": warmup, "start": None, "skip_bad": skip_bad,
        "skip_nonfinite": skip_nonfinite,
    }  # fmt: skip
    config = _config(page, {**values, **options})
    opened = runs.open_config_data(config, data_dir, screen)
    if epochs is None:
        config = replace(config, settings=config.settings.long_enough(len(opened.train)))
    store = store_for(screen, tracking_uri, offline, create=True)
    unique = list(dict.fromkeys(dimensions))
    every = range(seed, seed + seeds)
    done = sweep.compare_latent(
        unique, every, config, store, screen, data=opened, data_dir=data_dir, experiment=experiment, jobs=jobs
    )
    if json:
        screen.data(
            {"run": done.info.name, "id": done.info.id, "points": done.rows, "table": done.table, "failed": done.failed}
        )
    elif done.table:
        table = pd.DataFrame([{k: v for k, v in row.items() if "psnr" not in k} for row in done.table])
        same = "" if "PCA components" in table else " (PCA: the same code size)"
        title = f"{page.name} on the test images of {opened.name}{same}"
        screen.table(layout.cells(table, "terminal"), title, right=layout.figures(table))
        for picture in done.pictures:
            screen.result(f"picture  {short(picture)}")
        screen.note(f"next     aelab compare {shlex.quote(done.info.name)}   aelab ui")
    if done.failed:
        raise UserError(f"{len(done.failed)} of {len(unique) * seeds} points failed.", *done.failed[:2])
