"""The verb `compare-latent`."""

import shlex
from typing import Annotated

import typer

from aelab.cli.options import (
    LARGEST_SEED,
    MANY,
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
    Seed,
    Set,
    SkipBad,
    SkipNonfinite,
    SplitSeed,
    Uri,
    Verbose,
    Warmup,
    assignments,
    console_for,
    short,
)
from aelab.errors import UserError, redacted

verbs = typer.Typer()

Dimensions = Annotated[
    list[int], typer.Argument(metavar="D...", min=1, max=MANY, help="Latent dimensions, such as 2 5 10.")
]
Recipe = Annotated[str, typer.Option(help="Name or path of a recipe that reconstructs and has latent_dim.")]
Seeds = Annotated[
    int, typer.Option(min=1, max=10_000, help="Runs per dimension, with the seeds --seed, --seed + 1, ...")
]
Jobs = Annotated[int, typer.Option(min=1, max=10_000, help="Runs to train at once, each in its own process.")]


@verbs.command("compare-latent")
def compare_latent(
    dimensions: Dimensions,
    recipe: Recipe = "stacked",
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    set_: Set = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = 0,
    data: Data = "auto",
    data_dir: DataDir = None,
    image_size: ImageSize = None,
    skip_bad: SkipBad = False,
    split_seed: SplitSeed = 0,
    device: Device = "auto",
    precision: Precision = "float32",
    max_steps: MaxSteps = None,
    patience: Patience = None,
    ema: Ema = None,
    schedule: LearningRateSchedule = None,
    warmup: Warmup = None,
    skip_nonfinite: SkipNonfinite = 0,
    experiment: Experiment = None,
    tracking_uri: Uri = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train one run per latent dimension and seed, and compare their errors.

    The table shows the reconstruction error on the test set, mean and standard deviation over seeds, beside that of the PCA
    of equal size. Curve, contact sheet and table (CSV, Markdown, LaTeX) are logged to a parent run. Runs that are done
    already are not trained again: the same command continues where it was stopped.
    """
    console = console_for(quiet, verbose)
    from aelab import recipe_files

    options = assignments(recipe_files.trust(recipe), set_ or [])
    if "latent_dim" in options:
        raise UserError(
            "--set latent_dim: the dimensions are the arguments, such as aelab compare-latent 2 5 10", code=2
        )
    if seed + seeds - 1 > LARGEST_SEED:
        raise UserError(
            f"--seeds {seeds}: the last of them would be {seed + seeds - 1}; {LARGEST_SEED} is the largest.", code=2
        )
    import aelab

    done = aelab.sweep(
        recipe,
        latent_dim=dimensions,
        seed=range(seed, seed + seeds),
        jobs=jobs,
        experiment=experiment,
        tracking_uri=tracking_uri,
        offline=offline,
        epochs=epochs,
        batch_size=batch_size,
        data=data,
        data_dir=data_dir,
        image_size=image_size,
        skip_bad=skip_bad,
        split_seed=split_seed,
        device=device,
        precision=precision,
        max_steps=max_steps,
        patience=patience,
        ema=ema,
        schedule=schedule,
        warmup=warmup,
        skip_nonfinite=skip_nonfinite,
        **options,
    )
    from aelab.results import cells, number_columns, records

    table = done.table() if done.rows else None
    if json:
        rows = [] if table is None else records(table)
        console.data(
            {"run": done.info.name, "id": done.info.id, "points": done.rows, "table": rows, "failed": done.failed}
        )
    elif table is not None:
        shown = table[[name for name in table if "psnr" not in str(name)]]
        same = "" if "PCA components" in table else " (PCA: the same code size)"
        title = f"{done.info.recipe} on the test images of {done.info.tags['aelab.data']}{same}"
        console.table(cells(shown, "terminal"), title, right=number_columns(shown), marked=["mse", "sse"])
        for picture in done.pictures:
            console.result(f"picture  {short(picture)}")
        typed = f" --tracking-uri {shlex.quote(redacted(tracking_uri))}" if tracking_uri and not offline else ""
        console.next(f"aelab compare {shlex.quote(done.info.name)}{typed}", f"aelab ui{typed}")
    if done.failed:
        points = len(set(dimensions)) * seeds
        raise UserError(f"{len(done.failed)} of {points} points failed.", *done.failed[:2])
