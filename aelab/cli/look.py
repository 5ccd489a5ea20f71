"""The verbs that look at what is there: eval, sample, interpolate, recipes, data, ui."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aelab import recipe_files
from aelab.cli.options import (
    MANY,
    DataDir,
    Device,
    Force,
    Json,
    Name,
    Names,
    Out,
    Quiet,
    Seed,
    Set,
    Uri,
    assignments,
    destination,
    screen_for,
    short,
    store_for,
)
from aelab.errors import UserError

if TYPE_CHECKING:
    from aelab.console import Screen
    from aelab.tracking import RunInfo, Store
    from aelab.workflows.train import Opened

SAMPLES = 500  # importance samples an image, unless told otherwise

verbs = typer.Typer()


@verbs.command("eval")
def evaluate(
    run: Names,
    samples: Annotated[
        int | None,
        typer.Option(min=0, max=MANY, help="Importance samples an image.  (default: 500; 0 with --plain or --set)"),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, max=MANY, help="Test images for these samples, evenly spread.  (default: all)")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=MANY, help="Images at once; no figure depends on it (to 1e-6).")] = 250,
    inception: Annotated[
        Path | None, typer.Option(help="Weights of torchvision's inception_v3: distances of samples in its features too.")
    ] = None,
    plain: Annotated[
        bool, typer.Option("--plain", help="Loss terms and reconstructions only: the quick ones, for many runs.")
    ] = False,
    set_: Set = None, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None, force: Force = False,
    json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Figures on the test set, each beside a baseline and a control.

    What there is depends on what the model can do: reconstruct, encode, sample, classify, or say how likely an image is.
    The figures and pictures are logged to the run.

    With --set the same weights are judged under another option, such as --set level=0.25 of a denoising autoencoder: the
    figures of --plain, logged under test/NAME-VALUE/.

    What takes long is the likelihood (--samples, --images) and the first evaluation of samples on a data set, which trains
    its classifier and compares real images, once.
    """
    from aelab.evaluation import generation
    from aelab.evaluation.diagnostics import said_by_test
    from aelab.evaluation.report import report_of
    from aelab.training.device import pick_device
    from aelab.workflows import train as runs

    store = store_for(screen := screen_for(quiet), tracking_uri)
    answers = []
    extractor = generation.inception(inception, pick_device(device)) if inception else None
    for info in [store.find(name) for name in run]:
        changed = assignments(runs.configuration(info, store, screen)[1], set_ or [])
        opened = runs.open_run(info, store, screen, device, changed)
        data = runs.run_data(opened, data_dir, screen, force)
        quick = plain or bool(changed)
        draws = (0 if quick else SAMPLES) if samples is None else samples
        report = report_of(
            opened.recipe, data, screen, draws=draws, images=images, seed=opened.config.settings.seed, batch_size=batch_size,
            extractor=extractor, plain=quick,
        ).under(changed)  # fmt: skip
        paths = runs.keep(report, info, store)
        answers.append(
            {
                "run": info.name,
                "id": info.id,
                "data": data.name,
                "images": len(data.test),
                "metrics": report.figures,
                "notes": report.notes,
            }
        )
        for each in said_by_test(report.figures, info.tags.get("aelab.diagnostics", "")):
            screen.warn(f"{info.name}: {each}")
        if not json:
            screen.table(report.table(), f"{info.name} on {len(data.test):,} test images of {data.name}")
            for note in report.notes:
                screen.note(f"note     {note}")
            for path in paths:
                screen.result(f"picture  {short(path)}")
    if json:
        screen.data({"runs": answers})


@verbs.command()
def sample(
    run: Name, n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many images.")] = 64, seed: Seed = 0,
    out: Out = None, device: Device = "auto", tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw codes from the prior and decode them into a grid."""
    from aelab import figures
    from aelab.evaluation.evaluate import eval_mode
    from aelab.recipe import Autoencodes, Generates

    out = destination(out, figures.WRITTEN)
    screen, store, info, opened = _open(run, device, tracking_uri, quiet)
    if not isinstance(opened.recipe, Generates):
        can = (
            f"; this one can: aelab interpolate {shlex.quote(info.name)}"
            if isinstance(opened.recipe, Autoencodes)
            else ""
        )
        what = f"{info.name} cannot sample: {info.recipe} has no prior to draw codes from."
        raise UserError(what, f"Sample a vae or a gan{can}", code=2)
    with eval_mode(opened.recipe, seed):
        images = opened.recipe.decode(opened.recipe.sample_prior(n))
    _show(store, info, f"samples-{n}-seed{seed}", figures.grid(images, max(1, round(n**0.5))), out, screen)


@verbs.command()
def interpolate(
    run: Name,
    path: Annotated[Literal["linear", "spherical", "both"], typer.Option(help="How to walk from code to code.")] = "both",
    pairs: Annotated[int, typer.Option(min=1, max=100, help="How many walks.")] = 6,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images in a walk, both ends included.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="A file for the picture too, as of sample; of both: NAME-linear, NAME-spherical.")
    ] = None,
    seed: Seed = 0, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Walk from code to code and draw the images on the way.

    The ends are codes of test images or, without an encoder, draws from the prior.
    """
    from aelab import figures
    from aelab.evaluation.evaluate import eval_mode
    from aelab.recipe import Autoencodes, Generates
    from aelab.workflows import train as runs

    out = destination(out, figures.WRITTEN)
    screen, store, info, opened = _open(run, device, tracking_uri, quiet)
    recipe = opened.recipe
    if not isinstance(recipe, (Autoencodes, Generates)):
        raise UserError(f"{info.name} cannot interpolate: {info.recipe} has no codes that decode to images.", code=2)
    with eval_mode(recipe, seed):
        if isinstance(recipe, Autoencodes):
            test = runs.run_data(opened, data_dir, screen).test
            starts, ends = (recipe.encode(test.batch(index)[0]) for index in test.pairs(pairs))
        else:
            starts, ends = recipe.sample_prior(pairs), recipe.sample_prior(pairs)
        for kind in ("linear", "spherical") if path == "both" else (path,):
            picture = figures.walks(recipe, starts, ends, steps, kind)
            target = out.with_stem(f"{out.stem}-{kind}") if out and path == "both" else out
            _show(store, info, f"interpolation-{kind}-seed{seed}", picture, target, screen)


@verbs.command()
def recipes(json: Json = False) -> None:
    """List the recipes, the lecture's and those in ./recipes."""
    from aelab.console import Screen

    rows = [
        {"recipe": page.name, "what": page.summary, "file": short(page.path)}
        for page in recipe_files.available().values()
    ]
    Screen().data({"recipes": rows}) if json else Screen().table(rows)


@verbs.command()
def data(
    fetch: Annotated[str | None, typer.Option(help="Download this data set: mnist, fashion-mnist or cifar10.")] = None,
    data_dir: DataDir = None,
) -> None:
    """List the data sets and where they lie, or fetch one."""
    from aelab.data import listing, obtain
    from aelab.data.catalog import DOWNLOADABLE

    screen = screen_for(False)
    if fetch is not None:
        if fetch not in DOWNLOADABLE:
            raise UserError(f"'{fetch}' is not a data set that can be fetched: {', '.join(DOWNLOADABLE)}.", code=2)
        with screen.fetching() as advance:
            screen.result(f"{fetch} is in {obtain(DOWNLOADABLE[fetch], data_dir, advance).place}")
    else:
        screen.table(listing(data_dir))


@verbs.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on this machine.")] = 5000,
    browser: Annotated[bool, typer.Option(help="Open a web browser.")] = True,
    tracking_uri: Uri = None,
) -> None:
    """Browse the runs in MLflow's pages, served on this machine."""
    import webbrowser

    from aelab import tracking

    store = store_for(screen := screen_for(False), tracking_uri)
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


def _open(run: str, device: str, tracking_uri: str | None, quiet: bool) -> "tuple[Screen, Store, RunInfo, Opened]":
    from aelab.workflows.train import open_run

    store = store_for(screen := screen_for(quiet), tracking_uri)
    info = store.find(run)
    return screen, store, info, open_run(info, store, screen, device)


def _show(store: "Store", info: "RunInfo", name: str, picture: Any, out: Path | None, screen: "Screen") -> None:
    """Logs a picture on a run, writes it to `out` too, and says where it is."""
    from aelab.figures import write

    if out:
        write(out, picture)
    tracked = store.annotate(info)
    path = tracked.picture(f"pictures/{name}.png", picture)
    tracked.close()
    screen.result(f"picture  {short(out or path)}")
