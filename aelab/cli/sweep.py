"""The verb `sweep`."""

import shlex
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from aelab.cli.compare import show_best
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
    console_for,
    short,
)
from aelab.errors import UserError, redacted

if TYPE_CHECKING:
    from aelab.cli.console import Console
    from aelab.workflows import Planned, Sweep

verbs = typer.Typer()
CLUSTER = "Cluster"  # a panel of --help

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="Recipe to train, by its name or path.")]
Values = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME=VALUES...]",
        help="An option of the recipe or of the training, and its values: latent_dim=2,5,10, latent_dim=2..6, or "
        "lr=1e-4..1e-2:log:5, five values from end to end, evenly in the logarithm. Given again, it has those values too.",
    ),
]
Seeds = Annotated[
    int,
    typer.Option(
        min=1,
        max=10_000,
        help="Runs for each combination, with the seeds --seed, --seed + 1, ...; tables average them.",
    ),
]
FirstSeed = Annotated[
    int,
    typer.Option(
        "--seed",
        min=0,
        max=LARGEST_SEED,
        help="Seed of the random numbers of the first run of each combination; of a search, that of all its runs.",
        rich_help_panel=TRAINING,
    ),
]
Trials = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=100_000,
        help="Search instead of trying all combinations: so many trials, chosen one after the other by Optuna's TPE. A range "
        "then needs no number of values, and a trial that is worse than the median is stopped early.",
    ),
]
Metric = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Metric of the validation images by which points are ranked, such as best/loss.",
        show_default="the one that the recipe monitors",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=10_000,
        help="Runs to train at the same time, at most, each in its own process.",
        show_default="1 on this machine; what the cluster has room for",
    ),
]
Launcher = Annotated[
    Literal["local", "slurm", "ray"],
    typer.Option(
        help="Where points are trained: on this machine, as a job array of Slurm (pip install 'aelab[slurm]'), or as tasks of "
        "a Ray cluster (pip install 'aelab[ray]').",
        rich_help_panel=CLUSTER,
    ),
]
Slurm = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="Options of the Slurm job, with commas between them, such as partition=gpu,gpus=1,time=60 (minutes).",
        rich_help_panel=CLUSTER,
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="NAME=VALUE",
        help="What a point takes of a machine of the Ray cluster: cpus=1,gpus=0.25 lets four points share a GPU.",
        show_default="cpus=1,gpus=0",
        rich_help_panel=CLUSTER,
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Address of the Ray cluster, HOST:PORT.",
        show_default="the one of this machine",
        rich_help_panel=CLUSTER,
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and print the points, and train nothing.")]


@verbs.command(cls=Verb)
def sweep(
    context: typer.Context,
    recipe: RecipeName,
    values: Values = None,
    seeds: Seeds = 1,
    trials: Trials = None,
    metric: Metric = None,
    jobs: Jobs = None,
    launcher: Launcher = "local",
    slurm: Slurm = None,
    ray: Ray = None,
    ray_address: RayAddress = None,
    dry_run: DryRun = False,
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
    """Train a recipe with all combinations of several options, or search among them.

    Points are checked before anything is trained. A point that is done already is not trained again, a stopped one is
    resumed, and a failed one is named while the others go on: the same command continues where it was stopped, and with
    another value trains only that. `aelab compare SWEEP` makes the table.
    """
    console = console_for(quiet, verbose)
    settings = [
        "epochs",
        "batch_size",
        "data",
        "image_size",
        "skip_bad",
        "split_seed",
        "device",
        "precision",
        "max_steps",
        "patience",
        "ema",
        "schedule",
        "warmup",
        "skip_nonfinite",
        "augment",
    ]
    typed = {name: context.params[name] for name in settings if _is_typed(context, name)}
    options = {**_options(values or [], typed), **typed}
    if "seed" not in options:
        options["seed"] = _seeds(seed, seeds)
    elif seeds > 1 or _is_typed(context, "seed"):
        raise UserError("seed=... is given, so leave --seed and --seeds out.", code=2)
    import aelab

    where: dict[str, Any] = {"data_dir": data_dir, "tracking_uri": tracking_uri}
    where |= {"metric": metric, "launcher": launcher, "ray_address": ray_address}
    where["slurm"] = _pairs("slurm", slurm, "partition=gpu,time=60")
    where["ray"] = _pairs("ray", ray, "gpus=0.25,cpus=1")
    for name in options.keys() & {*where, "recipe", "trials", "jobs", "experiment", "offline"}:
        raise UserError(f"{name} cannot vary: it is an option of the sweep itself, --{name.replace('_', '-')}.", code=2)
    if dry_run:
        if trials is not None:
            raise UserError("--dry-run: a search chooses its points only when it trains them.", code=2)
        from aelab.workflows import plan_sweep

        _show_plan(plan_sweep(recipe, **where, **options), console, json)
        return
    done = aelab.sweep(
        recipe,
        trials=trials,
        jobs=jobs,
        experiment=experiment,
        offline=offline,
        **where,
        **options,
    )
    suffix = f" --tracking-uri {shlex.quote(redacted(tracking_uri))}" if tracking_uri and not offline else ""
    _show(done, console, json, suffix)
    if done.failed:
        count = len(done.failed) + len(done.runs)
        raise UserError(f"{len(done.failed)} of {count} points failed.", *done.failed[:2])


def _is_typed(context: typer.Context, name: str) -> bool:
    return getattr(context.get_parameter_source(name), "name", "") in ("COMMANDLINE", "ENVIRONMENT")


def _options(words: list[str], typed: dict[str, Any]) -> dict[str, list[str]]:
    """The texts of each option in NAME=VALUES, in the order of the words. Raises UserError for anything else."""
    found: dict[str, list[str]] = {}
    for word in words:
        name, equals, text = word.partition("=")
        name = name.strip().lstrip("-").replace("-", "_")
        if not equals or not name or not text.strip():
            raise UserError(
                f"'{word:.60}': write an option and its values, such as latent_dim=2,5,10 or lr=1e-4..1e-2:log:5.",
                code=2,
            )
        if name in typed:
            raise UserError(f"{name} is given twice, as --{name.replace('_', '-')} and as {word:.60}.", code=2)
        found.setdefault(name, []).append(text)
    return found


def _pairs(option: str, text: str | None, example: str) -> dict[str, str]:
    """The names and values in NAME=VALUE,NAME=VALUE of an option. Raises UserError for anything else."""
    found = {}
    for pair in filter(None, (text or "").split(",")):
        name, equals, value = pair.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UserError(f"--{option} {pair}: write NAME=VALUE,..., such as {example}.", code=2)
        found[name.strip()] = value.strip()
    return found


def _seeds(first: int, count: int) -> list[int]:
    if first + count - 1 > LARGEST_SEED:
        raise UserError(
            f"--seeds {count}: the last of them would be {first + count - 1}; {LARGEST_SEED} is the largest.", code=2
        )
    return list(range(first, first + count))


def _show_plan(planned: "Planned", console: "Console", json: bool) -> None:
    """Shows the points of a sweep, which are done, and about how long the others take."""
    from aelab.workflows import announced

    points = list(zip(planned.points, planned.done, strict=True))
    if json:
        rows = [{**each.values, "done": done, "epochs": each.plan.config.settings.epochs} for each, done in points]
        console.data({"points": rows, "seconds": planned.seconds})
        return
    console.table(
        [
            {**each.typed, "done": "yes" if done else "", "epochs": str(each.plan.config.settings.epochs)}
            for each, done in points
        ]
    )
    console.result(announced(planned))


def _show(done: "Sweep", console: "Console", json: bool, suffix: str) -> None:
    """Shows the table of a sweep, its figures, its best point, and what to type next."""
    from aelab.results import cells, number_columns, records
    from aelab.workflows import best_of

    table = done.table() if done.runs else None
    if json:
        rows = [] if table is None else records(table)
        runs = [{"run": run.name, "id": run.id, "status": run.status} for run in done.runs]
        console.data({"run": done.info.name, "id": done.info.id, "runs": runs, "table": rows, "failed": done.failed})
    elif table is not None:
        mark = done.comparison.markable
        console.table(cells(table, "terminal", mark), right=number_columns(table), turn=True, marked=mark)
        for picture in done.pictures:
            console.result(f"picture  {short(picture)}")
        named = shlex.quote(done.info.name)
        show_best(*best_of(done.comparison, done.store), console, f"aelab compare {named}{suffix}", f"aelab ui{suffix}")
