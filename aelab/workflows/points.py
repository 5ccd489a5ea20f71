"""The points of a sweep: the trainings that it is made of, each with the values of what varies."""

import hashlib
import itertools
import logging
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from aelab import recipe_files
from aelab.data import Dataset
from aelab.errors import UserError
from aelab.metrics import number
from aelab.progress_bar import progress_bar
from aelab.recipe_files import RecipeFile
from aelab.tracking import RunInfo, RunWriter, Store
from aelab.training import Settings
from aelab.workflows.launching import Job
from aelab.workflows.planning import Config, Plan, plan

log = logging.getLogger(__name__)

MOST_POINTS = 10_000
LONGEST_NAME = 80  # characters of what the names of runs begin with


@dataclass(frozen=True)
class Point:
    """A training of a sweep: the values of the options that vary, and its plan."""

    values: Mapping[str, Any]
    plan: Plan

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.typed.items()) or self.plan.recipe_file.name

    @property
    def typed(self) -> dict[str, str]:
        """The values as they are typed, exactly: no two points of a sweep have the same."""
        return {name: _exact(value) for name, value in self.values.items()}

    @property
    def short(self) -> str:
        """The values with four significant digits."""
        return ", ".join(f"{name} {shown(value)}" for name, value in self.values.items())

    @property
    def name(self) -> str:
        """What the name of its run begins with, such as vae-latent_dim5-seed0."""
        parts = [self.plan.recipe_file.name, *(f"{name}{shown(value)}" for name, value in self.values.items())]
        long = "-".join(parts).replace("/", "-").replace(" ", "")
        return long if len(long) <= LONGEST_NAME else self.plan.recipe_file.name

    def job(self, parent: str, experiment: str | None) -> Job:
        """The training, as a job of the sweep with this parent run."""
        return Job(
            self.plan.config, self.plan.recipe_file, self.plan.identity, str(self), f"{self.name}-", experiment, parent
        )


def shown(value: Any) -> str:
    """A value as it is typed, a number with four significant digits."""
    return number(value) if isinstance(value, float) else _exact(value)


def _exact(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if value is None or isinstance(value, bool) else str(value).removesuffix(".0")


def grid(
    recipe: str | Path,
    values: Mapping[str, Sequence[Any]],
    opened: Callable[[Config], Dataset],
    varied: Sequence[str],
) -> list[Point]:
    """The points of all combinations of the values; the seed changes fastest. They are named by what is `varied`.

    Raises UserError, which names the point, if one of them cannot be trained as it is typed, or is the same as another.
    """
    count = math.prod(map(len, values.values()))
    if count > MOST_POINTS:
        raise UserError(f"these are {count:,} points; a sweep has {MOST_POINTS:,} at most.", code=2)
    names = sorted(values, key=lambda name: name == "seed")
    points = []
    with progress_bar("points to check", count) as bar:
        for combination in itertools.product(*(values[name] for name in names)):
            chosen = dict(zip(names, combination, strict=True))
            points.append(point(recipe, chosen, [name for name in names if name in varied], opened))
            bar.advance(1)
    first: dict[str, Point] = {}  # by identity: a run that stands for two points would count as two seeds
    for each in points:
        if (other := first.setdefault(each.plan.identity, each)) is not each:
            raise UserError(
                f"'{other}' and '{each}' are the same training, whose numbers do not depend on what differs.",
                "Give one of them.",
                code=2,
            )
    return points


def point(
    recipe: str | Path, chosen: Mapping[str, Any], varied: Sequence[str], opened: Callable[[Config], Dataset]
) -> Point:
    """The point with these values. Raises UserError if it cannot be trained."""
    try:
        planned = plan(str(recipe), **chosen, opened=opened)
        options, classes = planned.config.options, len(planned.data.classes)
        planned.check(recipe_files.build(planned.recipe_file, planned.data.image, options, classes))
    except UserError as problem:
        which = ", ".join(f"{name} {shown(chosen[name])}" for name in varied if name != "seed")
        raise UserError(*f"{which}: {problem}".removeprefix(": ").split("\n")[:3], code=2) from problem
    return Point({name: chosen[name] for name in varied}, planned)


def parent_run(
    recipe_file: RecipeFile, facts: Sequence[str], params: Mapping[str, Any], varied: Sequence[str], data: Dataset,
    store: Store, experiment: str | None, name: str,
) -> RunWriter:  # fmt: skip
    """The parent run of a sweep: that of the same sweep before, if there is one, else a new one.

    Sweeps are the same if their `facts` are: the identities of the points, or what a search is told.
    """
    identity = hashlib.sha256(" ".join(facts).encode()).hexdigest()
    if before := store.newest(kind="sweep", identity=identity):
        return store.reopen(before)
    return store.create(
        experiment,
        name,
        params={"recipe": recipe_file.name, **params},
        tags={
            "aelab.kind": "sweep",
            "aelab.identity": identity,
            "aelab.varies": " ".join(varied),
            "aelab.recipe": recipe_file.name,
            "aelab.recipe_sha256": recipe_file.sha256,
            "aelab.version": metadata.version("aelab"),
            "aelab.data": data.name,
            "aelab.data_fingerprint": data.fingerprint,
        },
    )


@contextmanager
def parent_status(parent: RunWriter) -> Iterator[None]:
    """Closes the parent run as killed or failed, with the reason, if the block raises."""
    try:
        yield
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt) or getattr(error, "code", 0) > 128
        parent.tags({"aelab.reason": str(error) or type(error).__name__})
        parent.close("KILLED" if stopped else "FAILED")
        raise


def say_done(points: Sequence[Point], known: Mapping[str, RunInfo]) -> None:
    """Says of each point that is done already by which run."""
    for each in points:
        info = known.get(each.plan.identity)
        if info and info.status == "FINISHED":
            log.info(f"{info.name}  is done already ({each})")


def runs_by_identity(recipe_file: RecipeFile, store: Store) -> dict[str, RunInfo]:
    """The newest run of each identity among those of this recipe file: a finished one if there is one."""
    runs = store.runs(f"tags.`aelab.kind` = 'run' and tags.`aelab.recipe_sha256` = '{recipe_file.sha256}'")
    found: dict[str, RunInfo] = {}
    for info in reversed(runs):
        identity = info.tags.get("aelab.identity", "")
        if identity not in found or found[identity].status != "FINISHED" or info.status == "FINISHED":
            found[identity] = info
    return found


def seconds_of(points: Sequence[Point], runs: Sequence[RunInfo]) -> float | None:
    """About how long the points train, by what a step took finished runs of the recipe on the same data; None without such."""
    if not points:
        return 0.0
    data = points[0].plan.data
    alike = [
        run for run in runs if run.status == "FINISHED" and run.tags.get("aelab.data_fingerprint") == data.fingerprint
    ]
    seconds = [run.seconds / steps for run in alike if run.seconds is not None and (steps := _steps(run))]
    if not seconds:
        return None
    return statistics.median(seconds) * sum(each.plan.config.settings.steps(len(data.train)) for each in points)


def _steps(run: RunInfo) -> int:
    """About how many steps a finished run has taken; 0 if its parameters do not tell."""
    try:
        most = run.params.get("max_steps")
        settings = Settings(
            int(run.params["epochs"]), int(run.params["batch_size"]), max_steps=int(most) if most else None
        )
        return settings.steps(int(run.params["images_train"]))
    except (KeyError, ValueError, ZeroDivisionError):
        return 0
