"""A search over the options of a recipe by Optuna. The tracked runs are its trials: they alone say what was tried."""

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aelab.data import Dataset
from aelab.errors import UserError, did_you_mean, similar
from aelab.evaluation import evaluate_loss
from aelab.metrics import number
from aelab.recipe_files import RecipeFile
from aelab.results import direction, metric_of
from aelab.tracking import RunInfo, RunWriter, Store
from aelab.workflows import launching
from aelab.workflows.launching import Job
from aelab.workflows.listing import mark_members, sweep_runs
from aelab.workflows.planning import Config, Plan
from aelab.workflows.points import Point, point, shown
from aelab.workflows.space import Range

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

log = logging.getLogger(__name__)

STARTUP_TRIALS = 5  # complete ones, before any trial is pruned


class Search:
    """What is searched: the values of each option, and the metric that is minimised or maximised.

    Raises UserError, before anything is trained, if the metric is none that a search can use.
    """

    def __init__(
        self,
        recipe_file: RecipeFile,
        values: Mapping[str, Sequence[Any] | Range],
        varied: Sequence[str],
        metric: str | None,
        opened: Callable[[Config], Dataset],
    ) -> None:
        self.recipe_file, self.values, self.varied, self.opened = recipe_file, values, list(varied), opened
        first = {name: each.low if isinstance(each, Range) else each[0] for name, each in values.items()}
        planned = self.point(first).plan
        self.data, self.seed = planned.data, planned.config.settings.seed
        self.metric = checked_metric(planned, metric)
        better = direction(self.metric)
        if not better:
            raise UserError(f"--metric {self.metric}: it is not defined which values of it are better.", code=2)
        self.minimise = better == "lower"
        self.facts = [
            "search", recipe_file.sha256, self.metric, self.data.fingerprint,
            *(f"{name}={self.described(name)}" for name in sorted(values)),
        ]  # fmt: skip

    def described(self, name: str) -> str:
        """What an option may be, in words: 1e-4..1e-2 (log), or its values."""
        each = self.values[name]
        if isinstance(each, Range):
            return f"{each.low:g}..{each.high:g}{' (log)' * each.log}"
        return " ".join(map(shown, each))

    def point(self, chosen: Mapping[str, Any]) -> Point:
        """The point with these values. Raises UserError if it cannot be trained."""
        return point(self.recipe_file.path, chosen, self.varied, self.opened)

    def run(
        self, trials: int, jobs: int, parent: RunWriter, store: Store, experiment: str | None, data_dir: Path | None
    ) -> list[str]:
        """Trains trials until there are `trials`, those of earlier calls included. Returns why each failed trial did."""
        runner = _Runner(self, parent, store, experiment)
        left = trials - runner.count
        if left <= 0:
            log.info(f"{runner.count} trials are done already; more: --trials {runner.count + 10}")
            return []
        log.info(
            f"{trials} trials, {runner.count} done already: {runner.standing()}" if runner.count else f"{trials} trials"
        )
        todo = runner.jobs(trials)
        if jobs > 1:
            launching.run_in_processes(todo, jobs, store, data_dir, runner.ended, runner.watch)
        else:
            launching.run_here(todo, left, store, data_dir, runner.ended, runner.watch)
        return runner.failed


class _Runner:
    """The trials of a search while they are trained."""

    def __init__(self, search: Search, parent: RunWriter, store: Store, experiment: str | None) -> None:
        import optuna
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.search, self.parent, self.store, self.experiment = search, parent, store, experiment
        self.space: dict[str, BaseDistribution] = {}
        self.choices: dict[str, dict[str, Any]] = {}  # of an option with a list of values, by their text
        for name in search.varied:
            each = search.values[name]
            if isinstance(each, Range):
                kind = IntDistribution if each.whole else FloatDistribution
                self.space[name] = kind(each.low, each.high, log=each.log)  # type: ignore[arg-type]
            else:
                self.choices[name] = {str(value): value for value in each}
                self.space[name] = CategoricalDistribution(list(self.choices[name]))
        self.study: Study = optuna.create_study(
            direction="minimize" if search.minimise else "maximize", pruner=optuna.pruners.MedianPruner(STARTUP_TRIALS)
        )
        self.trials: dict[str, Trial] = {}  # by the label of their job
        self.failed: list[str] = []
        stopped = []
        for info in sweep_runs(parent.info, store):
            if info.status == "RUNNING" or (info.interrupted and not is_pruned(info)):
                stopped.append(info)
            else:
                self._remember(info)
        self.count = len(self.study.trials)
        for info in stopped:
            self.study.enqueue_trial(self._values(info), skip_if_exists=True)

    def _values(self, info: RunInfo) -> dict[str, Any]:
        """What Optuna chose for a run."""
        found: dict[str, Any] = {}
        for name in self.search.varied:
            each, text = self.search.values[name], info.params.get(name, "None")
            found[name] = text if not isinstance(each, Range) else int(text) if each.whole else float(text)
        return found

    def _remember(self, info: RunInfo) -> None:
        """Tells the study of a trial that has ended."""
        from optuna.trial import TrialState, create_trial

        value = metric_of(info, self.search.metric)
        state = TrialState.PRUNED if is_pruned(info) else TrialState.FAIL
        if info.status == "FINISHED" and value is not None and math.isfinite(value):
            state = TrialState.COMPLETE
        self.study.add_trial(
            create_trial(
                state=state,
                value=value if state == TrialState.COMPLETE else None,
                params=self._values(info),
                distributions=self.space,
                intermediate_values=self._curve(info),
            )
        )

    def _curve(self, info: RunInfo) -> dict[int, float]:
        """The metric after each epoch, on the validation images."""
        return dict(self.store.curve(info, f"val/{self.search.metric.partition('/')[2]}"))

    def jobs(self, trials: int) -> Iterator[Job]:
        """A job for each trial that is missing, chosen only when it can begin.

        Each choice has a random seed of its own number, so that it does not matter whether the search was stopped between.
        """
        import optuna

        while (number := len(self.study.trials) - self._waiting()) < trials:
            seed = hashlib.sha256(f"{self.search.seed} {number}".encode()).digest()
            self.study.sampler = optuna.samplers.TPESampler(seed=int.from_bytes(seed[:4], "big"))
            trial = self.study.ask(self.space)
            chosen = {
                name: self.choices[name][value] if name in self.choices else value
                for name, value in trial.params.items()
            }
            fixed = {name: each[0] for name, each in self.search.values.items() if name not in self.space}  # type: ignore[index]
            try:
                found = self.search.point({**fixed, **chosen})
            except UserError as problem:  # a combination that the recipe does not allow
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                self.failed.append(str(problem).replace("\n", " "))
                continue
            job = replace(found.job(self.parent.id, self.experiment), label=f"trial {number + 1}: {found.short}")
            self.trials[job.label] = trial
            before = launching.find(job, self.store)
            if before and before.status != "FINISHED":
                for epoch, value in self._curve(before).items():
                    trial.report(value, epoch)
            yield job

    def _waiting(self) -> int:
        from optuna.trial import TrialState

        return len(self.study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))

    def watch(self, job: Job, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Whether to stop a trial after an epoch."""
        trial, value = self.trials[job.label], metrics.get(self.search.metric.partition("/")[2])
        if value is None or not math.isfinite(value):
            return False
        trial.report(value, epoch)
        return bool(trial.should_prune())

    def ended(self, job: Job, why: str) -> None:
        """Tells the study how a trial ended."""
        from optuna.trial import TrialState

        trial, info = self.trials[job.label], launching.find(job, self.store)
        value = metric_of(info, self.search.metric) if info and info.status == "FINISHED" else None
        if info and is_pruned(info):
            self.study.tell(trial, state=TrialState.PRUNED)
            log.info(f"{job.label}: {info.tags['aelab.reason']}")
        elif value is not None and math.isfinite(value) and not why:
            self.study.tell(trial, value)
            mark_members([info] if info else [], self.parent.info, self.store)
            log.info(f"{job.label}: {self.search.metric} {number(value)}; {self.standing()}")
        else:
            self.study.tell(trial, state=TrialState.FAIL)
            self.failed.append(f"{job.label}: {why or 'the metric is missing or not finite'}".replace("\n", " "))
            log.warning(UserError(*self.failed[-1:]))

    def standing(self) -> str:
        """The best value so far."""
        from optuna.trial import TrialState

        complete = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        return f"best so far {number(self.study.best_value)}" if complete else "none is complete"


def is_pruned(info: RunInfo) -> bool:
    """Whether a search stopped a run."""
    return info.status == "KILLED" and info.tags.get("aelab.reason", "").startswith("pruned")


def checked_metric(planned: Plan, metric: str | None) -> str:
    """The metric of the validation images that was asked for, else the one that the recipe monitors.

    Raises UserError if it is none that this training logs.
    """
    recipe = planned.build()
    few = replace(planned.data.val, images=planned.data.val.images[:2], labels=planned.data.val.labels[:2])
    names = list(evaluate_loss(recipe, few.to(next(recipe.parameters()).device)))
    kept = "best" if recipe.monitor else "last"
    if metric is None:
        if recipe.monitor is None:
            raise UserError(
                f"{planned.recipe_file.name} keeps its last weights, and monitors no metric: say which with --metric.",
                f"There are: {', '.join(f'last/{name}' for name in names)}",
                code=2,
            )
        return f"best/{recipe.monitor}"
    split, _, name = metric.partition("/")
    if split == "test":
        raise UserError(
            f"--metric {metric}: options are chosen by validation images, such as {kept}/{names[0]}.",
            "The test images are for the best point: aelab eval RUN",
            code=2,
        )
    if split not in (kept, "val") or name not in names:
        there = [f"{kept}/{each}" for each in names]
        raise UserError(
            f"--metric {metric}: no point will log it.{did_you_mean(similar(metric, there))}",
            f"There are: {', '.join(there)}",
            code=2,
        )
    return metric
