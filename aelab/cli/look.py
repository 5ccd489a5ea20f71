"""The verbs that look at what is there: eval, sample, interpolate, compare, runs, recipes, data, ui."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aelab import cookbook
from aelab.cli.options import (
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
    screen_for,
    short,
)
from aelab.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aelab.console import Screen
    from aelab.runs import Opened
    from aelab.tracking import RunInfo, Store

verbs = typer.Typer()


@verbs.command("eval")
def evaluate(
    run: Names,
    samples: Annotated[int, typer.Option(min=0, help="Importance samples an image for the likelihood; 0: none.")] = 500,
    set_: Set = None, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None, force: Force = False,
    json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Figures on the test set, beside those of a PCA of equal size.

    With --set, of the same weights under another option, such as --set level=0.25 of a denoising autoencoder; these are
    logged under test/NAME-VALUE/.

    Prints and logs the loss terms and, where the recipe reconstructs, the error, and draws test images with their
    reconstructions.
    """
    from aelab import pictures, runs
    from aelab.evaluation import at_rest, classes_of_samples, report
    from aelab.metrics import definition
    from aelab.recipe import Autoencodes
    from aelab.tracking import Store

    screen, store = screen_for(quiet), Store(tracking_uri)
    answers = []
    for info in [store.find(name) for name in run]:
        changed = assignments(runs.configuration(info, store)[1], set_ or [])
        opened = runs.open_run(info, store, screen, device, changed)
        data = runs.run_data(opened, data_dir, screen, force)
        figures = report(opened.recipe, data, screen, samples)
        suffix = "".join(f"-{name}-{value}" for name, value in changed.items())
        if seen := classes_of_samples(opened.recipe, data, screen):
            figures |= seen.figures
            chart = pictures.bars(dict(zip(data.classes, seen.shares.tolist(), strict=True)), "share of the samples")
            chart_path = _keep(
                store, info, f"test-classes{suffix}", chart, {"aelab.classifier_sha256": seen.classifier}
            )
        under = "".join(f"{name}-{value}/" for name, value in changed.items())
        figures = {key.replace("test/", f"test/{under}"): value for key, value in figures.items()}
        store.add_figures(info, figures)
        answers.append(
            {"run": info.name, "id": info.id, "data": data.name, "images": len(data.test), "metrics": figures}
        )
        rows: list[dict[str, object]] = []
        for key, value in figures.items():
            split, _, name = key.rpartition("/")
            if not name.startswith("pca_"):
                baseline = {"PCA": figures.get(f"{split}/pca_{name}")} if f"{split}/pca_mse" in figures else {}
                unit = known.unit if (known := definition(key)) else ""
                rows.append({"metric": key, "value": value, **baseline, "unit": unit})
        if not json:
            screen.table(rows, f"{info.name} on {len(data.test):,} test images of {data.name}")
        if isinstance(opened.recipe, Autoencodes):
            with at_rest(opened.recipe):
                picture = pictures.reconstructions(opened.recipe, data.test.showcase(32))
            path = _keep(store, info, f"test-reconstructions{suffix}", picture)
            if not json:
                screen.result(f"picture  {short(path)}")
        if seen and not json:
            screen.result(f"picture  {short(chart_path)}")
    if json:
        screen.data({"runs": answers})


@verbs.command()
def sample(
    run: Name, n: Annotated[int, typer.Option("-n", min=1, max=10_000, help="How many images.")] = 64, seed: Seed = 0,
    out: Out = None, device: Device = "auto", tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Draw codes from the prior and decode them into a grid."""
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
    _show(store, info, f"samples-{n}-seed{seed}", pictures.grid(images, max(1, round(n**0.5))), out, screen)


@verbs.command()
def interpolate(
    run: Name,
    path: Annotated[Literal["linear", "spherical", "both"], typer.Option(help="How to walk from code to code.")] = "both",
    pairs: Annotated[int, typer.Option(min=1, max=100, help="How many walks.")] = 6,
    steps: Annotated[int, typer.Option(min=2, max=100, help="Images in a walk, both ends included.")] = 10,
    out: Annotated[
        Path | None, typer.Option(help="A file for the picture too; of both: NAME-linear, NAME-spherical.")
    ] = None,
    seed: Seed = 0, data_dir: DataDir = None, device: Device = "auto", tracking_uri: Uri = None, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Walk from code to code and draw the images on the way.

    The ends are codes of test images or, without an encoder, draws from the prior.
    """
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
            starts, ends = (recipe.encode(test.batch(index)[0]) for index in test.pairs(pairs))
        else:
            starts, ends = recipe.prior(pairs), recipe.prior(pairs)
        for kind in ("linear", "spherical") if path == "both" else (path,):
            picture = pictures.walks(recipe, starts, ends, steps, kind)
            target = out.with_stem(f"{out.stem}-{kind}") if out and path == "both" else out
            _show(store, info, f"interpolation-{kind}-seed{seed}", picture, target, screen)


@verbs.command()
def compare(
    run: Annotated[list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs; all finished ones if none is named.")] = None,
    recipe: Annotated[str | None, typer.Option(help="Only runs of this recipe.")] = None,
    filter_: Annotated[str, typer.Option("--filter", help="MLflow's filter, such as \"params.latent_dim = '2'\".")] = "",
    metric: Annotated[list[str] | None, typer.Option(help="A figure to show, such as test/mse; repeatable.")] = None,
    table: Annotated[
        Literal["labels"] | None, typer.Option(help="labels: error against labels, pretrained and from scratch.")
    ] = None,
    curve: Annotated[
        str | None, typer.Option(metavar="METRIC", help="Draw this figure over the training, such as step/grad_g.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File of that picture.  (default: compare-METRIC.png)")] = None,
    tracking_uri: Uri = None, json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """Put tracked runs side by side.

    Shows the options in which they differ, and their figures: of the test set where all of them have been evaluated, else
    of the validation set.
    """
    from aelab import pictures
    from aelab.compare import comparison, labels, labels_table, records
    from aelab.tracking import Store

    screen, store = screen_for(quiet), Store(tracking_uri)
    chosen = [store.find(name) for name in run or []] or [
        info for info in store.runs(filter_)
        if info.status == "FINISHED" and info.tags.get("aelab.kind") == "run" and recipe in (None, info.recipe)
    ]  # fmt: skip
    if not chosen:
        raise Problem("no finished run fits.", "See what is there: aelab runs")
    frame = labels_table(chosen) if table else comparison(chosen, metric or ())
    rows = records(frame)
    if not rows:
        raise Problem("none of these runs was trained with labels.", "Train some: aelab train pretrained --labels 100")
    if curve:
        target = out or Path(f"compare-{curve.replace('/', '-')}.png")
        named = labels(comparison(chosen))
        lines = {label: store.curve(info, curve) for label, info in zip(named, chosen, strict=True)}
        if missing := [label for label, points in lines.items() if not points]:
            raise Problem(f"{missing[0]} has no figure '{curve}'.", "See which: aelab ui", code=2)
        pictures.save(target, pictures.curves(lines, curve))
    if json:
        screen.data({"runs": rows})
    else:
        screen.table(rows)
        if curve:
            screen.result(f"picture  {short(target)}")


@verbs.command()
def runs(
    recipe: Annotated[str | None, typer.Option(help="Only runs of this recipe.")] = None,
    filter_: Annotated[str, typer.Option("--filter", help="MLflow's filter, such as \"params.latent_dim = '2'\".")] = "",
    tracking_uri: Uri = None, json: Json = False, quiet: Quiet = False,
) -> None:  # fmt: skip
    """List the tracked runs, newest first."""
    from aelab.compare import overview, row
    from aelab.tracking import Store

    screen, store = screen_for(quiet), Store(tracking_uri)
    store.mark_dead()
    found = overview([info for info in store.runs(filter_) if recipe in (None, info.recipe)])
    if json:
        screen.data(
            {"runs": [{**row(info), "id": info.id, "name": info.name, "parent": info.parent} for info in found]}
        )
    elif found:
        screen.table([row(info) for info in found])
    else:
        screen.note(f"There are no runs in {store.shown_uri} yet. Start one: aelab train vae")


@verbs.command()
def recipes(json: Json = False) -> None:
    """List the recipes, the lecture's and those in ./recipes."""
    from aelab.console import Screen

    rows = [{"recipe": page.name, "what": page.summary, "file": short(page.path)} for page in cookbook.pages().values()]
    Screen().data({"recipes": rows}) if json else Screen().table(rows)


@verbs.command()
def data(
    fetch: Annotated[str | None, typer.Option(help="Download this data set: mnist, fashion-mnist or cifar10.")] = None,
    data_dir: DataDir = None,
) -> None:
    """List the data sets and where they lie, or fetch one."""
    from aelab.data import listing, obtain
    from aelab.data.sets import DOWNLOADABLE

    screen = screen_for(False)
    if fetch is not None:
        if fetch not in DOWNLOADABLE:
            raise Problem(f"'{fetch}' is not a data set that can be fetched: {', '.join(DOWNLOADABLE)}.", code=2)
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

    screen, store = screen_for(False), tracking.Store(tracking_uri)
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
    from aelab.runs import open_run
    from aelab.tracking import Store

    screen, store = screen_for(quiet), Store(tracking_uri)
    info = store.find(run)
    return screen, store, info, open_run(info, store, screen, device)


def _keep(store: "Store", info: "RunInfo", name: str, picture: Any, tags: "Mapping[str, str] | None" = None) -> Path:
    """Logs a picture, an array or a figure, on a run, and returns where its file is."""
    tracked = store.annotate(info)
    tracked.tags(tags or {})
    log = tracked.figure if hasattr(picture, "savefig") else tracked.picture
    path = log(f"pictures/{name}.png", picture)
    tracked.close()
    return path


def _show(store: "Store", info: "RunInfo", name: str, picture: Any, out: Path | None, screen: "Screen") -> None:
    """Logs a picture on a run, writes it to `out` too, and says where it is."""
    from aelab.pictures import write

    if out:
        write(out, picture)
    path = _keep(store, info, name, picture)
    screen.result(f"picture  {short(out or path)}")
