"""The verb `train`, with one command per recipe, made from its signature."""

import inspect
import re
import sys
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from aelab import recipe_files
from aelab.cli.help import Group, Verb
from aelab.cli.options import (
    EPOCHS,
    TRACKING,
    TRAINING,
    Augment,
    BatchSize,
    Data,
    DataDir,
    Ema,
    Epochs,
    Experiment,
    ImageSize,
    LearningRateSchedule,
    MaxSteps,
    Offline,
    Patience,
    Precision,
    Quiet,
    Resume,
    Seed,
    SkipBad,
    SkipNonfinite,
    SplitSeed,
    Start,
    TrainingDevice,
    Uri,
    Verbose,
    Warmup,
    console_for,
)
from aelab.cli.resume import resume, show_trained
from aelab.errors import UserError, visible

if TYPE_CHECKING:
    from aelab.recipe_files import Option, RecipeFile, Signature
    from aelab.tracking import RunInfo

verbs = typer.Typer()


def train(recipe: str, name: str, values: dict[str, Any], typed: set[str]) -> None:
    """Trains a recipe, typed as `recipe` (a name or path) and named `name`, with options; `typed` are those from the user."""
    console = console_for(values.pop("quiet"), values.pop("verbose"))
    import aelab

    resumed, like = values.pop("resume"), values.pop("like")
    ask = _ask if sys.stdin.isatty() and sys.stderr.isatty() else None
    if like:
        if resumed:
            raise UserError("--like starts a new run, --resume continues one: give one of them.", code=2)
        changes = {option: values[option] for option in typed & values.keys()}
        where = {option: values[option] for option in ("data_dir", "tracking_uri")}  # which the environment may name
        run = aelab.train_like(like, recipe=recipe, **{**where, **changes}, resume_stopped=ask)
    elif resumed:
        given = {option: values[option] for option in typed & values.keys()} | {"recipe": name}
        run = aelab.resume(
            resumed,
            epochs=given.get("epochs"),
            data_dir=values["data_dir"],
            tracking_uri=values["tracking_uri"],
            offline=values["offline"],
            given=given,
        )
    else:
        run = aelab.train(recipe, **values, resume_stopped=ask)
    show_trained(run, console)


def _ask(stopped: "RunInfo") -> bool:
    """Asks whether to continue the stopped run of the same command."""
    return typer.confirm(
        f"{visible(stopped.name)} of the same command was stopped. Continue it?", default=True, err=True
    )


def _train_command(recipe_file: "RecipeFile", typed_as: str) -> Any:
    """The command `train NAME`, made from the options that every recipe has and the signature of this one."""
    signature = recipe_files.signature(recipe_file)
    common = [_of_recipe(parameter, signature) for parameter in inspect.signature(_common).parameters.values()]
    taken = {parameter.name for parameter in common}
    for option in signature.options:
        if option.name in taken:
            raise UserError(
                f"{recipe_file.path}: the option '{option.name}' is one of aelab's own; give it another name."
            )
    left_to_the_recipe = {option.name for option in signature.options} | signature.settings.keys()

    def command(context: typer.Context, **values: Any) -> None:
        typed = {name for name in values if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
        chosen = {name: value for name, value in values.items() if name in typed or name not in left_to_the_recipe}
        train(typed_as, recipe_file.name, chosen, typed)

    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [first, *map(_parameter, signature.options), *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(name=recipe_file.name, cls=Verb)(command)
    made = typer.main.get_command(single)
    made.help = signature.doc or recipe_file.name  # afterwards, as typer would take the indentation of equations away
    return made


RunName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Name of the run, by which other commands find it.",
        show_default="RECIPE-xxxxxx",
        rich_help_panel=TRACKING,
    ),
]


Like = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Train with the options of this run, except for those that are typed.",
        show_default=False,
        rich_help_panel=TRAINING,
    ),
]


def _common(
    *,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    data: Data = "auto",
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    skip_bad: SkipBad = False,
    split_seed: SplitSeed = 0,
    device: TrainingDevice = "auto",
    precision: Precision = "float32",
    max_steps: MaxSteps = None,
    patience: Patience = None,
    ema: Ema = None,
    schedule: LearningRateSchedule = None,
    warmup: Warmup = None,
    skip_nonfinite: SkipNonfinite = 0,
    augment: Augment = None,
    start: Start = None,
    like: Like = None,
    resume: Resume = None,
    name: RunName = None,
    experiment: Experiment = None,
    tracking_uri: Uri = None,
    offline: Offline = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Its signature lists the options that the command of every recipe has."""


def _of_recipe(parameter: inspect.Parameter, signature: "Signature") -> inspect.Parameter:
    """One of aelab's own options with the default that a recipe has for it.

    Phases with a number of epochs of their own are known by their options, whose help speaks of epochs.
    """
    if parameter.name not in signature.settings:
        return parameter
    hint, info = get_args(parameter.annotation)
    info, default = copy(info), signature.settings[parameter.name]
    info.show_default = f"{default:g} in this recipe" if isinstance(default, float) else f"{default} in this recipe"
    own = [_flag(option) for option in signature.options if re.search(r"\bepochs?\b", option.help, re.IGNORECASE)]
    if parameter.name == "epochs" and own:
        info.help = f"{EPOCHS} Some phases have their own number: see {', '.join(own)}."
    return parameter.replace(default=default, annotation=Annotated[hint, info])


def _flag(option: "Option") -> str:
    return f"--{option.name.replace('_', '-')}"


def _parameter(option: "Option") -> inspect.Parameter:
    """An option of a recipe as a parameter for typer."""
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
    """An application with one verb."""
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    single.command(cls=Verb)(verb)
    return single


class Recipes(Group):
    """The group `train`, with a command for every recipe. Only the file of the recipe that is trained is executed."""

    heading = "Recipes"

    def list_commands(self, ctx: Any) -> list[str]:
        return list(recipe_files.available())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        recipe_file = recipe_files.find(cmd_name)
        stub = typer.Typer(add_completion=False)
        stub.command(name=recipe_file.name, help=recipe_file.summary)(lambda: None)
        return typer.main.get_command(stub)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        of_a_run = args and args[0].partition("=")[0] in ("--resume", "--like")
        return super().parse_args(ctx, ["--", *args] if of_a_run else args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        option, equals, name = args[0].partition("=")
        if option == "--like":  # the run knows its recipe
            words = [*(["--like", name] if equals else args[:2]), *args[1 if equals else 2 :]]
            recipe = _recipe_of(words)
            return recipe, _train_command(recipe_files.trust(recipe), recipe), words
        if option == "--resume":
            return "resume", typer.main.get_command(_single(resume)), [name, *args[1:]] if equals else args[1:]
        if args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        return args[0], _train_command(recipe_files.trust(args[0]), args[0]), args[1:]


def _recipe_of(words: list[str]) -> str:
    """The recipe of the run that follows --like. The store is looked for where the words behind it say."""
    from aelab.cli.options import store_for
    from aelab.workflows import configuration

    if len(words) < 2:
        raise UserError("--like needs a run: aelab train --like RUN --lr 3e-4", code=2)
    uri = None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name == "--tracking-uri":
            uri = value if equals else following
    store = store_for(uri, "--offline" in words)
    return configuration(store.find(words[1]), store)[0].recipe


verbs.add_typer(
    typer.Typer(
        cls=Recipes,
        help="Train a recipe, by its name or by a path such as ./mine.py.\n\n"
        "`aelab train RECIPE --help` shows its equations and its options.",
        no_args_is_help=True,
        subcommand_metavar="RECIPE [OPTIONS]\naelab train --like RUN [OPTIONS]\naelab train --resume RUN",
    ),
    name="train",
)
