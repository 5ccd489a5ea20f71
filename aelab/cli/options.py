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

Names = Annotated[
    list[str],
    typer.Argument(
        metavar="RUN...",
        help="Id, start of an id, name, recipe (its newest finished run), folder, or models:/NAME@ALIAS.",
    ),
]
Name = Annotated[
    str,
    typer.Argument(
        metavar="RUN", help="Id, start of an id, name, recipe (its newest finished run), folder, or models:/NAME@ALIAS."
    ),
]
Data = Annotated[
    str,
    typer.Option(
        help="auto, mnist, mnist-5k, fashion-mnist, cifar10, digits, or a folder of pictures.", rich_help_panel=DATA
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder of the data sets.", envvar="AELAB_DATA", show_envvar=True, rich_help_panel=DATA),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        min=4, max=100_000, help="Scale and crop the pictures of a folder to this size.", rich_help_panel=DATA
    ),
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave out pictures of a folder that cannot be read.", rich_help_panel=DATA),
]
SplitSeed = Annotated[
    int,
    typer.Option(
        min=0, max=LARGEST_SEED, help="Seed of the split into train, validation and test.", rich_help_panel=DATA
    ),
]
Epochs = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=MANY,
        help="Passes over the training images; the recipe's own if not given, or more until there are 2,000 steps.",
        rich_help_panel=TRAINING,
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(min=1, max=MANY, help="Images per step; the recipe's own if not given.", rich_help_panel=TRAINING),
]
Seed = Annotated[
    int, typer.Option(min=0, max=LARGEST_SEED, help="Seed of weights, order and noise.", rich_help_panel=TRAINING)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.", rich_help_panel=TRAINING)]
Precision = Annotated[
    Literal["float32", "tf32", "bfloat16"],
    typer.Option(help="Floating-point precision; tf32 is for CUDA.", rich_help_panel=TRAINING),
]
MaxSteps = Annotated[
    int | None, typer.Option(min=1, max=MANY, help="Stop after this many steps.", rich_help_panel=TRAINING)
]
Patience = Annotated[
    int | None,
    typer.Option(
        min=1, max=MANY, help="Stop after this many epochs without a better validation.", rich_help_panel=TRAINING
    ),
]
SkipNonfinite = Annotated[
    int,
    typer.Option(
        min=0,
        max=MANY,
        help="Skip up to this many steps whose loss or gradient is not finite.",
        rich_help_panel=TRAINING,
    ),
]
LearningRateSchedule = Annotated[
    Literal["constant", "cosine"] | None,
    typer.Option("--schedule", help="Course of the learning rate over a phase.", rich_help_panel=TRAINING),
]
Warmup = Annotated[
    int | None,
    typer.Option(min=0, max=MANY, help="Steps over which the learning rate rises.", rich_help_panel=TRAINING),
]
Ema = Annotated[
    float | None,
    typer.Option(
        min=0,
        max=0.9999,
        help="Decay of an average of the weights, which is then validated and kept; 0 for no average.",
        rich_help_panel=TRAINING,
    ),
]
Start = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="Start with the weights of another run of this recipe.", rich_help_panel=TRAINING),
]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="An option of the recipe; repeatable.")
]
Uri = Annotated[
    str | None,
    typer.Option(help="MLflow store.  (default: MLFLOW_TRACKING_URI, else ./mlflow.db)", rich_help_panel=TRACKING),
]
Experiment = Annotated[
    str | None,
    typer.Option(help="MLflow experiment.  (default: MLFLOW_EXPERIMENT_NAME, else aelab)", rich_help_panel=TRACKING),
]
OfRecipe = Annotated[str | None, typer.Option("--recipe", help="Only runs of this recipe.")]
Filter = Annotated[str, typer.Option("--filter", help="A filter of MLflow's, such as \"params.latent_dim = '2'\".")]
Resume = Annotated[
    str | None,
    typer.Option(metavar="RUN", help="Continue this run instead; --epochs may be more.", rich_help_panel=TRACKING),
]
Offline = Annotated[
    bool,
    typer.Option("--offline", help="Track in ./mlflow.db; aelab sync sends the run later.", rich_help_panel=TRACKING),
]
Force = Annotated[bool, typer.Option("--force", help="Continue even if recipe, data or versions have changed.")]
Longer = Annotated[int | None, typer.Option(min=1, max=MANY, help="Lengthen the run to this many epochs.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object to stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show results, warnings and errors only.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show details too, such as each checkpoint.")]
Out = Annotated[Path | None, typer.Option(help="Also write the picture to this file; a PNG if its name has no suffix.")]


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
