"""Options that several verbs share, and functions that every verb needs."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aelab import recipe_files
from aelab.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aelab.cli.console import Console
    from aelab.recipe_files import RecipeFile
    from aelab.tracking import Store

EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C), 143 terminated."
MANY = 10**9  # more than anyone waits for; much larger numbers would overflow 64-bit counters
LARGEST_SEED = 2**32 - 1  # torch's CPU generator uses 32 bits: a larger seed would repeat a smaller one
TRAINING, DATA, TRACKING = "Training", "Data", "Tracking"  # panels of --help

RUN = "by its id or the start of it, its name, its folder, models:/NAME@ALIAS, or a recipe, meaning its newest finished run."
COMPUTE = "Device to compute on: cpu, cuda, cuda:1 or mps; auto takes a GPU if there is one."
OF_RECIPE = "the recipe's own"

Names = Annotated[list[str], typer.Argument(metavar="RUN...", help=f"One or more runs, each {RUN}")]
Name = Annotated[str, typer.Argument(metavar="RUN", help=f"A run, {RUN}")]
Data = Annotated[
    str,
    typer.Option(
        metavar="NAME|FOLDER",
        help="Images to train on: mnist, mnist-5k, fashion-mnist, cifar10, lfw (faces), digits, a folder of pictures, or the "
        "points of ring and grid; "
        "auto takes MNIST if it is on this disk or can be downloaded, else mnist-5k.",
        rich_help_panel=DATA,
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder in which data sets are looked for first, and into which they are downloaded.",
        envvar="AELAB_DATA",
        show_envvar=True,
        show_default="AELAB_DATA, else the user's cache folder",
        rich_help_panel=DATA,
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=4,
        max=100_000,
        help="Scale and crop the pictures of a folder, or the faces of lfw, to squares of this many pixels a side.",
        rich_help_panel=DATA,
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad",
        help="Leave out the pictures of a folder that cannot be read, instead of stopping.",
        rich_help_panel=DATA,
    ),
]
SplitSeed = Annotated[
    int,
    typer.Option(
        min=0,
        max=LARGEST_SEED,
        help="Seed of the split of the images into training, validation and test images.",
        rich_help_panel=DATA,
    ),
]
EPOCHS = "Passes over the training images. Without this option a small data set gets more, until there are 2,000 steps."
Epochs = Annotated[
    int | None,
    typer.Option(min=1, max=MANY, help=EPOCHS, show_default=OF_RECIPE, rich_help_panel=TRAINING),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, max=MANY, help="Images in each training step.", show_default=OF_RECIPE, rich_help_panel=TRAINING
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        min=0,
        max=LARGEST_SEED,
        help="Seed of the random numbers: initial weights, order of the images, noise.",
        rich_help_panel=TRAINING,
    ),
]
TrainingDevice = Annotated[
    str,
    typer.Option(metavar="DEVICE", help=COMPUTE.replace("compute", "train"), rich_help_panel=TRAINING),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help=COMPUTE)]
Precision = Annotated[
    Literal["float32", "tf32", "bfloat16"],
    typer.Option(
        help="Precision of the arithmetic; tf32 (CUDA only) and bfloat16 are less exact, and faster on most GPUs.",
        rich_help_panel=TRAINING,
    ),
]
MaxSteps = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MANY,
        help="Stop after this many training steps, whatever --epochs says; --schedule goes by --epochs all the same.",
        rich_help_panel=TRAINING,
    ),
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MANY,
        help="Stop after this many epochs in a row without a better validation.",
        rich_help_panel=TRAINING,
    ),
]
SkipNonfinite = Annotated[
    int,
    typer.Option(
        min=0,
        max=MANY,
        help="Leave out up to this many steps whose loss or gradient is NaN or infinite; one more ends the run.",
        rich_help_panel=TRAINING,
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        metavar="KINDS",
        help="Change each training image at random whenever it is seen, such as flip,shift: flip (left to right), shift (by "
        "up to an eighth of a side), crop (80 to 100 % of either side, enlarged).",
        rich_help_panel=TRAINING,
    ),
]
LearningRateSchedule = Annotated[
    Literal["constant", "linear", "cosine"] | None,
    typer.Option(
        "--schedule",
        help="How the learning rate goes on after the warm-up: it stays constant, or falls to 0, linearly in the second "
        "half of --epochs or along half a cosine from the first step.",
        show_default=OF_RECIPE,
        rich_help_panel=TRAINING,
    ),
]
Warmup = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=MANY,
        help="Steps at the start in which the learning rate rises from 0 to its full value.",
        show_default=OF_RECIPE,
        rich_help_panel=TRAINING,
    ),
]
Ema = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9999,
        help="Decay of a moving average of the weights; the averaged weights are validated and kept. 0 means no average.",
        show_default=OF_RECIPE,
        rich_help_panel=TRAINING,
    ),
]
Start = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Start with the weights of this run of the same recipe, instead of random ones.",
        rich_help_panel=TRAINING,
    ),
]
Uri = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address of the MLflow store that holds the runs.",
        show_default="MLFLOW_TRACKING_URI, else ./mlflow.db",
        rich_help_panel=TRACKING,
    ),
]
Experiment = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="MLflow experiment in which the runs are listed.",
        show_default="MLFLOW_EXPERIMENT_NAME, else aelab",
        rich_help_panel=TRACKING,
    ),
]
OfRecipe = Annotated[str | None, typer.Option("--recipe", metavar="RECIPE", help="Only the runs of this recipe.")]
Filter = Annotated[
    str,
    typer.Option(
        "--filter",
        metavar="TEXT",
        help="Only the runs that fit a filter in MLflow's language, such as \"params.latent_dim = '2'\".",
    ),
]
Resume = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Continue this run, with its own options, instead of starting a new one; --epochs may be larger than its own.",
        rich_help_panel=TRACKING,
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        help="Keep the run in ./mlflow.db instead of sending it to the store; `aelab sync` sends it later.",
        rich_help_panel=TRACKING,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print details too, such as each checkpoint.")]
Out = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Also write the picture to this file; a PNG if its name has no suffix."),
]


def console_for(quiet: bool = False, verbose: bool = False) -> "Console":
    """The console of a verb."""
    from aelab.cli.console import Console

    return Console(quiet, verbose)


def store_for(uri: str | None, offline: bool = False) -> "Store":
    """The store that a verb reads."""
    import logging

    from aelab.tracking import Store

    return Store(uri, offline, create=False, warn=logging.getLogger("aelab").warning)


def short(path: Path) -> str:
    """A path relative to the working folder if it is below it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def destination(out: Path | None, endings: "Sequence[str]") -> Path | None:
    """The file for a picture, a PNG if no suffix is given. Raises UserError, before any work, if it cannot be written."""
    if out is None:
        return None
    target = out if out.suffix or not out.name else out.with_name(out.name + ".png")
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            target.stat()
        if out.is_dir() or target.is_dir():
            raise UserError(f"--out {out} is a folder.", f"Name a file in it, such as {out / 'picture.png'}", code=2)
        there = next(place for place in (target, *target.parents) if place.exists())
    except OSError as error:
        raise UserError(f"--out {str(out)[:60]}: {error.strerror}.", code=2) from error
    if target.suffix.lower() not in endings:
        raise UserError(
            f"--out {out}: pictures cannot be written as {target.suffix}.", f"Use one of {' '.join(endings)}", code=2
        )
    if there != target and not there.is_dir():
        raise UserError(f"--out {out}: {there} is not a folder.", code=2)
    if not os.access(there, os.W_OK):
        raise UserError(f"--out {out}: {there} is not writable.", code=2)
    return target


def assignments(recipe_file: "RecipeFile", pairs: list[str]) -> dict[str, Any]:
    """The recipe's options that were given as NAME=VALUE. Raises UserError for an unknown name or an invalid value."""
    known = {option.name: option for option in recipe_files.signature(recipe_file).options}
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in known:
            raise UserError(f"--set {pair}: write NAME=VALUE with one of {', '.join(known)}.", code=2)
        if name in values:
            raise UserError(f"--set {name} is given twice.", code=2)
        try:
            values[name] = known[name].parse(text.strip())
        except ValueError as error:
            raise UserError(f"--set {name}: {error}", code=2) from error
    return values
