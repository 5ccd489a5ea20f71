"""The verb `compare-latent`."""

import re
import shlex
from typing import Annotated

import typer

from aelab.cli.help import Verb
from aelab.cli.options import (
    LARGEST_SEED,
    TRAINING,
    Augment,
    BatchSize,
    Data,
    DataDir,
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
    SkipBad,
    SkipNonfinite,
    SplitSeed,
    TrainingDevice,
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
    list[str],
    typer.Argument(
        metavar="D...", help="Latent dimensions to compare, such as 2 5 10 or 2,5,10: a model is trained for each."
    ),
]
Recipe = Annotated[
    str,
    typer.Option(
        metavar="RECIPE",
        help="Recipe to train, by its name or path: one that reconstructs images and has the option --latent-dim.",
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        max=10_000,
        help="Runs for each dimension, with the seeds --seed, --seed + 1, ...; the table then averages.",
    ),
]
Jobs = Annotated[int, typer.Option(min=1, max=10_000, help="Runs to train at the same time, each in its own process.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="An option of the recipe, the same for all runs, such as --set hidden=500,250; repeatable.",
    ),
]
FirstSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=LARGEST_SEED,
        help="Seed of the random numbers of the first run of each dimension: initial weights, order of the images, noise.",
        rich_help_panel=TRAINING,
    ),
]


@verbs.command("compare-latent", cls=Verb)
def compare_latent(
    dimensions: Dimensions,
    recipe: Recipe = "stacked",
    seeds: Seeds = 1,
    jobs: Jobs = 1,
    set_: Set = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: FirstSeed = 0,
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
    experiment: Experiment = None,
    tracking_uri: Uri = None,
    offline: Offline = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a model for each of several latent dimensions, and compare their errors.

    The table shows the reconstruction error on the test set, mean and standard deviation over seeds, beside that of the PCA
    of equal size. Curve, contact sheet and table (CSV, Markdown, LaTeX) are logged to a parent run. Runs that are done
    already are not trained again: the same command continues where it was stopped.
    """
    console = console_for(quiet, verbose)
    latent_dims = _numbers(dimensions)
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

    done = aelab.compare_latent(
        recipe,
        latent_dim=latent_dims,
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
        augment=augment,
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
        points = len(set(latent_dims)) * seeds
        raise UserError(f"{len(done.failed)} of {points} points failed.", *done.failed[:2])


def _numbers(words: list[str]) -> list[int]:
    """The latent dimensions, separated by spaces or commas. Raises UserError for anything that is none."""
    parts = [part.strip() for word in words for part in word.split(",") if part.strip()]
    for part in parts:
        if not re.fullmatch(r"[0-9]{1,9}", part) or int(part) < 1:
            raise UserError(
                f"'{part:.60}' is not a latent dimension: a whole number, at least 1.",
                "Write them like this: aelab compare-latent 2 5 10",
                code=2,
            )
    if not parts:
        raise UserError("there is no latent dimension.", "Write them like this: aelab compare-latent 2 5 10", code=2)
    return [int(part) for part in parts]
