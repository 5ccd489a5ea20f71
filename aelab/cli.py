"""The command line: verbs, their options, exit codes. The only typer; heavy imports wait until a verb needs them."""

import inspect
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn, get_origin

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from aelab import __version__, cookbook
from aelab.problem import Problem

if TYPE_CHECKING:
    from aelab.console import Screen
    from aelab.cookbook import Option, Page
    from aelab.runs import Config, Opened
    from aelab.tracking import RunInfo, Store

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated."

TRAINING, DATA, TRACKING = "Training", "Data", "Tracking"  # panels of --help

Names = Annotated[list[str], typer.Argument(metavar="RUN...", help="Id, start of an id, name, recipe (its newest) or folder.")]
Name = Annotated[str, typer.Argument(metavar="RUN", help="Id, start of an id, name, recipe (its newest finished run) or folder.")]
Data = Annotated[str, typer.Option(help="auto, mnist, mnist-5k, fashion-mnist, cifar10, digits, or a folder of pictures.", rich_help_panel=DATA)]
DataDir = Annotated[Path | None, typer.Option(help="Where data sets lie.", envvar="AELAB_DATA", show_envvar=True, rich_help_panel=DATA)]
ImageSize = Annotated[int | None, typer.Option(min=4, help="Scale and cut the pictures of a folder to this size.", rich_help_panel=DATA)]
SplitSeed = Annotated[int, typer.Option(min=0, help="Seed of the split into train, validation and test.", rich_help_panel=DATA)]
Epochs = Annotated[int | None, typer.Option(min=1, help="Passes over the training images; the recipe's own if not given.", rich_help_panel=TRAINING)]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Images in a step; the recipe's own if not given.", rich_help_panel=TRAINING)]
Seed = Annotated[int, typer.Option(min=0, help="Seed of weights, order and noise.", rich_help_panel=TRAINING)]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=TRAINING)]
Precision = Annotated[Literal["float32", "tf32", "bfloat16"], typer.Option(help="Of the arithmetic; tf32 is for CUDA.", rich_help_panel=TRAINING)]
MaxSteps = Annotated[int | None, typer.Option(min=1, help="End after so many steps.", rich_help_panel=TRAINING)]
Patience = Annotated[int | None, typer.Option(min=1, help="End after so many epochs without a better validation.", rich_help_panel=TRAINING)]
Uri = Annotated[str | None, typer.Option(help="MLflow store.  (default: MLFLOW_TRACKING_URI, else ./mlflow.db)", rich_help_panel=TRACKING)]
Experiment = Annotated[str | None, typer.Option(help="MLflow experiment.  (default: MLFLOW_EXPERIMENT_NAME, else aelab)", rich_help_panel=TRACKING)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Only results, warnings and errors.")]
Out = Annotated[Path | None, typer.Option(help="Write the picture to this file too.")]

class Verbs(TyperGroup):
    """The verbs, with the first one first: typer would put a group behind the commands."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=lambda name: name != "train")


app = typer.Typer(
    cls=Verbs,
    help="Train, evaluate, sample, interpolate and compare autoencoders and generative models. Every run is tracked in MLflow.",
    epilog=EXIT_CODES, no_args_is_help=True, pretty_exceptions_enable=False,
)  # fmt: skip


def train(page: "Page", values: dict[str, Any]) -> None:
    """Trains a recipe: `values` are the engine's options and the recipe's, as they were typed."""
    from aelab import runs
    from aelab.tracking import Store

    screen = _screen(values.pop("quiet"))
    places = {key: values.pop(key) for key in ("tracking_uri", "experiment", "name", "data_dir")}
    config = _config(page, values)
    data = runs.open_config_data(config, places["data_dir"], screen)
    store = Store(places["tracking_uri"])
    outcome = runs.start(config, store, screen, data=data, experiment=places["experiment"], name=places["name"])
    _farewell(outcome, screen)


def _config(page: "Page", values: dict[str, Any]) -> "Config":
    """The configuration that the typed values mean; what is left of them are the recipe's options."""
    from aelab.engine import Settings
    from aelab.runs import Config

    recipe = cookbook.load(page)
    settings = Settings(
        epochs=values.pop("epochs") or recipe.epochs, batch_size=values.pop("batch_size") or recipe.batch_size,
        **{key: values.pop(key) for key in ("seed", "device", "precision", "max_steps", "patience")},
    )  # fmt: skip
    given = {key: values.pop(key) for key in ("data", "image_size", "split_seed")}
    typed = str(page.path) if page.path != getattr(cookbook.pages().get(page.name), "path", None) else page.name
    return Config(typed, settings, values, **given)


def _farewell(outcome: Any, screen: "Screen") -> None:
    """What a training ends with: its figures, where its pictures are, and what to type next."""
    from aelab.console import number
    from aelab.recipe import Autoencodes, Generates

    name = outcome.info.name
    figures = "  ".join(f"val/{key} {number(value)}" for key, value in outcome.validation.items())
    screen.result(f"{name} finished  {figures}")
    for path in outcome.pictures:
        screen.result(f"picture  {_short(path)}")
    verbs = ["eval", *["sample"] * isinstance(outcome.recipe, Generates)]
    verbs += ["interpolate"] * isinstance(outcome.recipe, (Autoencodes, Generates))
    screen.note("next     " + "   ".join([*(f"aelab {verb} {name}" for verb in verbs), "aelab ui"]))


def _train_command(page: "Page") -> Any:
    """The command `train NAME`, made from the engine's options and the signature of the recipe."""
    recipe = cookbook.load(page)
    usual = {"epochs": recipe.epochs, "batch_size": recipe.batch_size}
    common = [p.replace(default=usual.get(p.name, p.default)) for p in inspect.signature(_common).parameters.values()]
    taken = {parameter.name for parameter in common}
    own = cookbook.options(recipe)
    for option in own:
        if option.name in taken:
            raise Problem(f"{page.path}: the option '{option.name}' is one of aelab's own; give it another name.")

    def command(**values: Any) -> None:
        train(page, values)

    parameters = [*map(_parameter, own), *common]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    single = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    doc = (inspect.getdoc(sys.modules[recipe.__module__]) or page.name)
    single.command(name=page.name, help="\b\n" + doc.replace("\n\n", "\n\n\b\n"), epilog=EXIT_CODES)(command)
    return typer.main.get_command(single)


def _common(
    *, epochs: Epochs = None, batch_size: BatchSize = None, seed: Seed = 0, data: Data = "auto", data_dir: DataDir = None,
    image_size: ImageSize = None, split_seed: SplitSeed = 0, device: Device = "auto", precision: Precision = "float32",
    max_steps: MaxSteps = None, patience: Patience = None,
    name: Annotated[str | None, typer.Option(help="Name of the run.  (default: RECIPE-xxxxxx)", rich_help_panel=TRACKING)] = None,
    experiment: Experiment = None, tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Carries the options that every recipe's command has."""


def _parameter(option: "Option") -> inspect.Parameter:
    """A recipe's option as a parameter that typer understands."""
    panel = "Recipe"
    if option.type is bool or get_origin(option.type) is Literal:
        hint: Any = Annotated[option.type, typer.Option(help=option.help, rich_help_panel=panel)]
        return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hint)
    shown = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else True
    parsed = typer.Option(parser=_parser(option), metavar=option.metavar, help=option.help, show_default=shown, rich_help_panel=panel)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=Annotated[Any, parsed]
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


class Recipes(TyperGroup):
    """The group `train`: a command for every recipe, whose file is only run when it is the one that is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(cookbook.pages())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        page = cookbook.find(cmd_name)
        stub = typer.Typer(add_completion=False)
        stub.command(name=page.name, help=page.summary)(lambda: None)
        return typer.main.get_command(stub)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0].startswith("-"):
            return super().resolve_command(ctx, args)
        return args[0], _train_command(cookbook.find(args[0])), args[1:]


app.add_typer(
    typer.Typer(cls=Recipes, help="Train a recipe: a name, or a path such as ./mine.py.", no_args_is_help=True,
                subcommand_metavar="RECIPE [OPTIONS]"),
    name="train",
)  # fmt: skip


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        typer.echo(f"aelab {__version__}")
        raise typer.Exit


@app.command()
def resume(run: Name, data_dir: DataDir = None, tracking_uri: Uri = None, quiet: Quiet = False) -> None:
    """Go on with an interrupted run, in the same MLflow run, as if it had never stopped."""
    from aelab import runs
    from aelab.tracking import Store

    screen, store = _screen(quiet), Store(tracking_uri)
    _farewell(runs.resume(store.find(run), store, screen, data_dir), screen)


@app.command("eval")
def evaluate(
    run: Names, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None, json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Loss terms and reconstruction error on the test set, with the PCA of the same code size beside them."""
    from aelab import pictures, runs
    from aelab.evaluation import at_rest, report
    from aelab.metrics import definition
    from aelab.recipe import Autoencodes
    from aelab.tracking import Store

    screen, store = _screen(quiet), Store(tracking_uri)
    answers = []
    for info in [store.find(name) for name in run]:
        opened = runs.open_run(info, store, screen, device)
        data = runs.run_data(opened, data_dir, screen)
        figures = report(opened.recipe, data)
        store.add_figures(info, figures)
        answers.append({"run": info.name, "id": info.id, "data": data.name, "images": len(data.test), "metrics": figures})
        rows: list[dict[str, object]] = []
        for key, value in figures.items():
            if not key.startswith("test/pca_"):
                known = definition(key)
                row = {"metric": key, "value": value, "PCA": figures.get(key.replace("/", "/pca_")), "unit": known.unit if known else ""}
                rows.append(row)
        if not json:
            screen.table(rows, f"{info.name} on {len(data.test):,} test images of {data.name}")
        if isinstance(opened.recipe, Autoencodes):
            with at_rest(opened.recipe):
                picture = pictures.reconstructions(opened.recipe, pictures.spread(data.test.images, 32))
            _keep(store, info, "test-reconstructions", picture, None, screen)
    if json:
        screen.data({"runs": answers})


@app.command()
def sample(
    run: Name, n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many images.")] = 64, seed: Seed = 0,
    out: Out = None, device: Device = "auto", tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw codes from the prior, decode them, and write the images as a grid."""
    from aelab import pictures
    from aelab.evaluation import at_rest
    from aelab.recipe import Generates

    screen, store, info, opened = _open(run, device, tracking_uri, quiet)
    if not isinstance(opened.recipe, Generates):
        raise Problem(
            f"{info.name} cannot sample: {info.recipe} has no prior to draw codes from.",
            "Sample a vae or a gan; this one can: aelab interpolate " + info.name, code=2,
        )  # fmt: skip
    with at_rest(opened.recipe, seed):
        images = opened.recipe.decode(opened.recipe.prior(n))
    _keep(store, info, f"samples-{n}-seed{seed}", pictures.grid(images, max(1, round(n**0.5))), out, screen)


@app.command()
def interpolate(
    run: Name,
    path: Annotated[Literal["linear", "spherical", "both"], typer.Option(help="How to walk from code to code.")] = "both",
    pairs: Annotated[int, typer.Option(min=1, max=100, help="How many walks.")] = 6,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images in a walk, both ends included.")] = 10,
    seed: Seed = 0, out: Out = None, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    """Walk from code to code, between test images or, without an encoder, between draws from the prior."""
    import torch

    from aelab import pictures, runs
    from aelab.evaluation import at_rest
    from aelab.recipe import Autoencodes, Generates

    screen, store, info, opened = _open(run, device, tracking_uri, quiet)
    recipe = opened.recipe
    if not isinstance(recipe, (Autoencodes, Generates)):
        raise Problem(f"{info.name} cannot interpolate: {info.recipe} has no codes that decode to images.", code=2)
    with at_rest(recipe, seed):
        if isinstance(recipe, Autoencodes):
            test = runs.run_data(opened, data_dir, screen).test
            chosen = torch.randperm(len(test))[: 2 * pairs] if len(test) >= 2 * pairs else torch.randint(len(test), (2 * pairs,))
            codes = recipe.encode(test.batch(chosen.to(test.images.device))[0])
        else:
            codes = recipe.prior(2 * pairs)
        for kind in ("linear", "spherical") if path == "both" else (path,):
            picture = pictures.walks(recipe, codes[:pairs], codes[pairs:], steps, kind)
            target = out.with_stem(f"{out.stem}-{kind}") if out and path == "both" else out
            _keep(store, info, f"interpolation-{kind}-seed{seed}", picture, target, screen)


@app.command("compare-latent")
def compare_latent(
    dimensions: Annotated[list[int], typer.Argument(metavar="D...", min=1, help="Latent dimensions, such as 2 5 10.")],
    recipe: Annotated[str, typer.Option(help="Name or path of a recipe that reconstructs and has latent_dim.")] = "stacked",
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the recipe; repeatable.")] = None,
    epochs: Epochs = None, batch_size: BatchSize = None, seed: Seed = 0, data: Data = "auto", data_dir: DataDir = None,
    image_size: ImageSize = None, split_seed: SplitSeed = 0, device: Device = "auto", precision: Precision = "float32",
    max_steps: MaxSteps = None, patience: Patience = None, experiment: Experiment = None, tracking_uri: Uri = None,
    json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Train one run a latent dimension and compare their test reconstruction error, with PCA beside it."""
    from aelab import launch, runs
    from aelab.tracking import Store

    page = cookbook.find(recipe)
    options = _assignments(page, set_ or [])
    screen = _screen(quiet)
    values: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "seed": seed, "data": data, "image_size": image_size,
        "split_seed": split_seed, "device": device, "precision": precision, "max_steps": max_steps, "patience": patience,
    }  # fmt: skip
    config = _config(page, {**values, **options})
    opened = runs.open_config_data(config, data_dir, screen)
    store = Store(tracking_uri)
    unique = list(dict.fromkeys(dimensions))
    sweep = launch.compare_latent(unique, config, store, screen, data=opened, experiment=experiment)
    if json:
        screen.data({"run": sweep.info.name, "id": sweep.info.id, "points": sweep.rows, "failed": sweep.failed})
    else:
        screen.table(sweep.rows, f"{page.name} on the test images of {opened.name} (PCA: the same code size)")
        for picture in sweep.pictures:
            screen.result(f"picture  {_short(picture)}")
        screen.note(f"next     aelab compare {' '.join(str(row['run']) for row in sweep.rows)}   aelab ui")
    if sweep.failed:
        raise Problem(f"{len(sweep.failed)} of {len(unique)} points failed.", *sweep.failed[:2])


@app.command()
def compare(
    run: Annotated[list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs; all finished ones if none is named.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only runs of this recipe.")] = None,
    filter_: Annotated[str, typer.Option("--filter", help="MLflow's filter, such as \"params.latent_dim = '2'\".")] = "",
    metric: Annotated[list[str] | None, typer.Option(help="A figure to show, such as test/mse; repeatable.")] = None,
    tracking_uri: Uri = None, json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Put tracked runs side by side: the options in which they differ, and their figures."""
    from aelab.compare import comparison, records
    from aelab.tracking import Store

    screen, store = _screen(quiet), Store(tracking_uri)
    chosen = [store.find(name) for name in run or []] or [
        info for info in store.runs(filter_)
        if info.status == "FINISHED" and info.tags.get("aelab.kind") == "run" and recipe in (None, info.recipe)
    ]  # fmt: skip
    if not chosen:
        raise Problem("no finished run fits.", "See what is there: aelab runs")
    rows = records(comparison(chosen, metric or ()))
    if json:
        screen.data({"runs": rows})
    else:
        screen.table(rows)


@app.command()
def runs(
    recipe: Annotated[str | None, typer.Option(help="Only runs of this recipe.")] = None,
    filter_: Annotated[str, typer.Option("--filter", help="MLflow's filter, such as \"params.latent_dim = '2'\".")] = "",
    tracking_uri: Uri = None, json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List the tracked runs, newest first; the runs of a sweep are indented."""
    from aelab.compare import overview
    from aelab.tracking import Store

    screen, store = _screen(quiet), Store(tracking_uri)
    found = [info for info in store.runs(filter_) if recipe in (None, info.recipe)]
    if json:
        screen.data({"runs": [{**row, "id": info.id, "name": info.name} for row, info in zip(overview(found), found, strict=True)]})
    elif found:
        screen.table(overview(found))
    else:
        screen.note(f"There are no runs in {store.shown_uri} yet. Start one: aelab train vae")


@app.command()
def recipes(json: Json = False) -> None:
    """List the recipes: the lecture's and those in ./recipes. None of them is run for it."""
    from aelab.console import Screen

    rows = [{"recipe": page.name, "what": page.summary, "file": _short(page.path)} for page in cookbook.pages().values()]
    Screen().data({"recipes": rows}) if json else Screen().table(rows)


@app.command()
def data(
    fetch: Annotated[str | None, typer.Option(help="Download this data set: mnist, fashion-mnist or cifar10.")] = None,
    data_dir: DataDir = None,
) -> None:
    """List the data sets and where they lie, or fetch one."""
    from aelab.data import DOWNLOADABLE, listing, obtain

    screen = _screen(False)
    if fetch is not None:
        if fetch not in DOWNLOADABLE:
            raise Problem(f"'{fetch}' is not a data set that can be fetched: {', '.join(DOWNLOADABLE)}.", code=2)
        with screen.fetching() as advance:
            screen.result(f"{fetch} is in {obtain(DOWNLOADABLE[fetch], data_dir, advance).place}")
    else:
        screen.table(listing(data_dir))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open a web browser.")] = True,
    tracking_uri: Uri = None,
) -> None:
    """Browse the runs: start MLflow's pages on 127.0.0.1 and open them where the runs are."""
    import webbrowser

    from aelab import tracking

    screen, store = _screen(False), tracking.Store(tracking_uri)
    if store.uri.startswith(("http://", "https://")):
        screen.result(page := store.page(store.experiment(None), store.uri))
        if browser:
            webbrowser.open(page)
        return
    page = store.page(store.experiment(None), f"http://127.0.0.1:{port}")
    with tracking.served(store, port) as server:
        screen.result(page)
        screen.note("Ctrl-C ends it.")
        if browser:
            webbrowser.open(page)
        try:
            server.wait()
        except KeyboardInterrupt:
            return


# shared by the verbs


def _screen(quiet: bool) -> "Screen":
    from aelab.console import Screen

    return Screen(quiet)


def _open(run: str, device: str, tracking_uri: str | None, quiet: bool) -> "tuple[Screen, Store, RunInfo, Opened]":
    from aelab.runs import open_run
    from aelab.tracking import Store

    screen, store = _screen(quiet), Store(tracking_uri)
    info = store.find(run)
    return screen, store, info, open_run(info, store, screen, device)


def _keep(store: "Store", info: "RunInfo", name: str, picture: Any, out: Path | None, screen: "Screen") -> None:
    """Logs a picture on a run, writes it to `out` too, and says where it is."""
    from aelab.pictures import write

    if out:
        write(out, picture)
    tracked = store.annotate(info)
    path = tracked.picture(f"pictures/{name}.png", picture)
    tracked.close()
    screen.result(f"picture  {_short(out or path)}")


def _assignments(page: "Page", pairs: list[str]) -> dict[str, Any]:
    """The recipe's options given as NAME=VALUE."""
    known = {option.name: option for option in cookbook.options(cookbook.load(page))}
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in known:
            raise Problem(f"--set {pair}: write NAME=VALUE with one of {', '.join(known)}.", code=2)
        try:
            values[name] = known[name].parse(text.strip())
        except ValueError as error:
            raise Problem(f"--set {pair}: {error}", code=2) from error
    return values


def _short(path: Path) -> str:
    """A path as one would type it here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def main() -> NoReturn:
    """Runs the command line and exits with its code; a user's mistake never ends in a traceback."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # our own go through the console
    try:
        code = app(prog_name="aelab", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except Problem as problem:
        _screen(False).error(str(problem))
        sys.exit(problem.code)
    except TyperException as error:
        if message := error.format_message():
            context = getattr(error, "ctx", None)
            help_line = f"\nTry: {context.command_path} --help" if context else ""
            _screen(False).error(message.strip() + help_line)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `aelab runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
