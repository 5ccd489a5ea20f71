"""Sweeps over any options: all combinations of their values, or a search, under a parent run that holds the table."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from annotated_types import Ge

from aelab import recipe_files
from aelab.errors import UserError, checked
from aelab.figures import sweep_figure
from aelab.metrics import duration
from aelab.results import csv, latex, markable, markdown, records, sweep_metric, sweep_table, sweep_values
from aelab.tracking import NoStoreError, RunInfo, RunWriter, Store
from aelab.training import pick_device
from aelab.workflows import launching, ray_cluster, searching, slurm_array
from aelab.workflows.listing import Comparison, mark_members, sweep_runs
from aelab.workflows.planning import opener
from aelab.workflows.points import Point, grid, parent_run, parent_status, runs_by_identity, seconds_of, shown
from aelab.workflows.space import Range, lists, space
from aelab.workflows.together import refuse_torchrun

if TYPE_CHECKING:
    import pandas as pd


log = logging.getLogger(__name__)

T = TypeVar("T")
Launcher = Literal["local", "slurm", "ray"]


@dataclass(frozen=True)
class Sweep:
    """The result of `aelab.sweep`.

    `info` is the parent run, `runs` are the finished runs, `varied` the options that vary, `pictures` the files of the
    figures, and `failed` says of each point that failed why.
    """

    info: RunInfo
    runs: list[RunInfo]
    varied: list[str]
    metric: str
    pictures: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    store: Store = field(kw_only=True, repr=False)

    @property
    def comparison(self) -> Comparison:
        """The sweep as `aelab compare` shows it. Raises UserError if no run has finished."""
        frame = self.table()
        return Comparison(frame, markable(self.runs, list(map(str, frame))), self.runs, self.varied, self.metric)

    def table(self) -> "pd.DataFrame":
        """One row for each combination of the options that vary, but for the seed: mean and standard deviation of metrics.

        They are those of the validation images, unless all runs were evaluated on the test images. Raises UserError if no run
        has finished.
        """
        if not self.runs:
            raise UserError("no point of the sweep has finished, so there is no table.", *self.failed[:2])
        return sweep_table(self.runs, self.varied, self.metric)


@dataclass(frozen=True)
class Planned:
    """What a sweep would train: its points, which of them are done, and about how many seconds the others take."""

    points: list[Point]
    done: list[bool]
    seconds: float | None


@checked
def sweep(
    recipe: str | Path,
    *,
    trials: Annotated[int, Ge(1)] | None = None,
    metric: str | None = None,
    jobs: Annotated[int, Ge(1)] | None = None,
    launcher: Launcher = "local",
    slurm: Mapping[str, str] | None = None,
    ray: Mapping[str, str | float] | None = None,
    ray_address: str | None = None,
    experiment: str | None = None,
    tracking_uri: str | None = None,
    offline: bool = False,
    data_dir: Path | str | None = None,
    **options: Any,
) -> Sweep:
    """Trains a recipe with all combinations of options, as tracked runs under a parent run.

    `options` are those of `train` and of the recipe. One that varies is a list of values, or a text as on the command line:
    "2,5,10", "1e-4..1e-2:log:5", "2..10". `seed=range(3)` repeats each combination.

    With `trials` a search tries so many combinations instead, by the tree-structured Parzen estimator of Optuna (Bergstra et
    al. 2011), which minimises or maximises `metric` on the validation images; a range then needs no number of values. A trial
    that is worse than the median of the others at an epoch is stopped.

    A point that is done already, with the same recipe source, options, settings and data, is not trained again; a stopped one
    is resumed. If a point fails, the others continue. `jobs` of them run at once: on this machine, by default one; in a job
    array of Slurm with the options `slurm`; or as tasks of the Ray cluster at `ray_address`, by default as many as it has room
    for. `ray` is what a task takes of its machine, {"cpus": 1, "gpus": 0} unless it says otherwise. Raises UserError, before
    anything is trained, if a point is impossible.
    """
    refuse_torchrun("a sweep")
    recipe_file = recipe_files.trust(str(recipe))
    directory = Path(data_dir) if data_dir else None
    if trials is not None and launcher != "local":
        raise UserError("a search trains on this machine: leave out --launcher, or --trials.", code=2)
    _check(launcher, slurm or {}, ray or {}, ray_address, options)
    if trials is not None:
        searched = _with_runs(space(recipe_file, options, search=True), tracking_uri, offline)
        varied = varied_in(searched, search=True)
        if "seed" in varied:
            raise UserError(
                "a search has one seed: leave --seeds out, and repeat the best point with more seeds.", code=2
            )
        search = searching.Search(recipe_file, searched, varied, metric, opener(directory))
        return _searched(
            search, trials, jobs or 1, Store(tracking_uri, offline, warn=log.warning), experiment, directory
        )
    values = _with_runs(lists(recipe_file, options), tracking_uri, offline)
    varied = varied_in(values)
    points = grid(recipe, values, opener(directory), varied)
    first = points[0].plan
    if metric:
        metric = searching.checked_metric(first, metric)
    store = Store(tracking_uri, offline, warn=log.warning)
    planned = _in_store(points, store)
    parent = parent_run(
        recipe_file,
        [each.plan.identity for each in points],
        {name: _listed(each) for name, each in values.items()},
        varied,
        first.data,
        store,
        experiment,
        f"{recipe_file.name}-sweep-",
    )
    log.info(announced(planned))
    todo = [each.job(parent.id, experiment) for each, done in zip(points, planned.done, strict=True) if not done]
    with parent_status(parent):
        match launcher:
            case "slurm":
                why = slurm_array.run_all(todo, jobs or 1, store, directory, slurm or {})
            case "ray":
                why = ray_cluster.run_all(todo, jobs, store, directory, ray_address, ray or {})
            case _:
                why = launching.run_all(todo, jobs or 1, store, directory)
        reasons = dict(zip((job.label for job in todo), why, strict=True))
        known = runs_by_identity(recipe_file, store)
        found = [known.get(each.plan.identity) for each in points]
        runs = [info for info in found if info and info.status == "FINISHED"]
        mark_members(runs, parent.info, store)
        ranked_by = sweep_metric(runs, metric) if runs else metric or ""
        pictures = summarise(parent, runs, varied, ranked_by) if runs else []
        failed = [
            f"{each}: {reasons[str(each)]}".replace("\n", " ")
            for each, info in zip(points, found, strict=True)
            if reasons.get(str(each)) and info not in runs  # unless another process finished it
        ]
    parent.close("FAILED" if failed else "FINISHED")
    return Sweep(store.get(parent.id), runs, varied, ranked_by, pictures, failed, store=store)


def _check(
    launcher: Launcher,
    slurm: Mapping[str, str],
    ray: Mapping[str, str | float],
    ray_address: str | None,
    options: Mapping[str, Any],
) -> None:
    """Raises UserError if the points cannot be trained where they are to be."""
    if slurm and launcher != "slurm":
        raise UserError("--slurm has options for --launcher slurm, which is not given.", code=2)
    if (ray or ray_address) and launcher != "ray":
        raise UserError("--ray and --ray-address are for --launcher ray, which is not given.", code=2)
    match launcher:
        case "slurm":
            slurm_array.check(slurm)
        case "ray":
            ray_cluster.check(ray_address, ray)
        case _ if isinstance(device := options.get("device"), str) and "," not in device:
            pick_device(device)


def plan_sweep(
    recipe: str | Path,
    *,
    metric: str | None = None,
    launcher: Launcher = "local",
    slurm: Mapping[str, str] | None = None,
    ray: Mapping[str, str | float] | None = None,
    ray_address: str | None = None,
    data_dir: Path | None = None,
    tracking_uri: str | None = None,
    **options: Any,
) -> Planned:
    """What `sweep` would train, checked as it checks it. Nothing is written; a store that does not exist yet has no runs."""
    _check(launcher, slurm or {}, ray or {}, ray_address, options)
    values = _with_runs(lists(recipe_files.trust(str(recipe)), options), tracking_uri)
    points = grid(recipe, values, opener(data_dir), varied_in(values))
    if metric:
        searching.checked_metric(points[0].plan, metric)
    try:
        return _in_store(points, Store(tracking_uri, create=False, warn=log.warning))
    except NoStoreError:
        return Planned(points, [False] * len(points), None)


def _in_store(points: list[Point], store: Store) -> Planned:
    """The points, with what is known of them in the store."""
    known = runs_by_identity(points[0].plan.recipe_file, store)
    done = [each.plan.identity in known and known[each.plan.identity].status == "FINISHED" for each in points]
    missing = [each for each, has in zip(points, done, strict=True) if not has]
    return Planned(points, done, seconds_of(missing, list(known.values())))


def _with_runs(values: dict[str, T], tracking_uri: str | None, offline: bool = False) -> dict[str, T]:
    """The values, with the ids of the runs to start from instead of their names: a name may become another run's.

    Raises UserError if there is no such run.
    """
    named = values.get("start")
    if not isinstance(named, list) or not any(named):
        return values
    store = Store(tracking_uri, offline, create=False, warn=log.warning)
    return {**values, "start": [store.find(name).id if name else None for name in named]}  # type: ignore[dict-item]


def varied_in(values: Mapping[str, Any], *, search: bool = False) -> list[str]:
    """The options that vary. Raises UserError if none does."""
    varied = [name for name, each in values.items() if isinstance(each, Range) or len(each) > 1]
    if search and not varied:
        raise UserError(
            "there is nothing to search: give an option a range, such as lr=1e-4..1e-2:log, or several values.", code=2
        )
    if not varied:
        raise UserError(
            "nothing varies: give an option several values, such as latent_dim=2,5,10, or --seeds 3.",
            "A single training is one of aelab train.",
            code=2,
        )
    return varied


def _listed(values: Sequence[Any]) -> str:
    return " ".join(map(shown, values))


def announced(planned: Planned) -> str:
    """How many points there are, how many are done, and about how long the others take."""
    count, done = len(planned.points), sum(planned.done)
    parts = [f"{count} point{'s' * (count > 1)}"]
    if done:
        parts.append(f"{done} done already")
    if done < count:
        known = planned.seconds
        parts.append(f"about {duration(known)} of training for the rest" if known else "no run yet to tell the time by")
    return ", ".join(parts)


def _searched(
    search: searching.Search, trials: int, jobs: int, store: Store, experiment: str | None, data_dir: Path | None
) -> Sweep:
    """A search; see `sweep`."""
    varied = search.varied
    parent = parent_run(
        search.recipe_file,
        search.facts,
        {**{name: search.described(name) for name in search.values}, "metric": search.metric},
        varied,
        search.data,
        store,
        experiment,
        f"{search.recipe_file.name}-search-",
    )
    with parent_status(parent):
        failed = search.run(trials, jobs, parent, store, experiment, data_dir)
        tried = sweep_runs(parent.info, store)
        runs = [info for info in tried if info.status == "FINISHED"]
        if pruned := sum(map(searching.is_pruned, tried)):
            log.info(
                f"{pruned} of {len(tried)} trials were stopped early, as worse than the median; they are not in the table"
            )
        pictures = summarise(parent, runs, varied, search.metric) if runs else []
    parent.close("FAILED" if failed else "FINISHED")
    return Sweep(store.get(parent.id), runs, varied, search.metric, pictures, failed, store=store)


def summarise(parent: RunWriter, runs: Sequence[RunInfo], varied: Sequence[str], metric: str) -> list[Path]:
    """Logs the table and the figure of a sweep to its parent run."""
    table = sweep_table(runs, varied, metric)
    mark = markable(runs, list(map(str, table)))
    parent.text("sweep.csv", csv(table))
    parent.text("sweep.md", markdown(table, mark))
    parent.text("sweep.tex", latex(table, mark))
    parent.json("sweep.json", records(table))
    parent.tags({"mlflow.note.content": markdown(table, mark), "aelab.metric": metric, "aelab.reason": ""})
    figure = sweep_figure(sweep_values(runs, varied, metric), metric)
    return [parent.picture(f"figures/sweep.{form}", figure) for form in ("png", "svg")] if figure else []
