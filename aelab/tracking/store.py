"""The tracking store: opened, searched, and asked for runs."""

import hashlib
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout
from mlflow.entities import Dataset, DatasetInput, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab import aliases
from aelab.errors import UserError, redacted
from aelab.tracking import copies, opening, registry
from aelab.tracking.info import RunInfo, cache_folder, local_path, run_folder, run_info
from aelab.tracking.opening import NoStoreError
from aelab.tracking.owner import WITHOUT_A_WORD, hold, is_gone, origin, this_process
from aelab.tracking.trouble import reason_of, refused, waiting
from aelab.tracking.writer import RunWriter, restoring

EXPERIMENT = "aelab"
LONGEST = 500  # name of an experiment that MLflow takes


class Store:
    """An MLflow tracking store: --tracking-uri, else MLFLOW_TRACKING_URI, else mlflow.db in the working directory.

    `offline` is that last one whatever the others say; its runs are marked for `aelab sync`. A database that is not there
    is created, unless `create` is false: then NoStoreError is raised. `warn` hears of long waits and of outages.
    """

    def __init__(
        self,
        uri: str | None = None,
        offline: bool = False,
        create: bool = True,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        here = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        typed = None if offline else uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.uri, self.offline, self.warn = opening.checked(typed or here), offline, warn
        self._asking = False
        self.database = opening.database_of(self.uri)
        if self.database and not create and not opening.holds_something(self.database):
            if typed:
                raise NoStoreError(
                    f"there is no store at {self.shown_uri}.", "It is made by the first training there: aelab train vae "
                    f"--tracking-uri {self.shown_uri}", code=2,
                )  # fmt: skip
            raise NoStoreError(
                "there are no runs in this folder: runs are kept per folder, in its mlflow.db.",
                "Go to the folder that you trained in, name its store with --tracking-uri, or start here: aelab train vae",
                code=2,
            )
        with waiting(f"the store {self.shown_uri}", warn):
            self._open()

    def _open(self) -> None:
        if opening.served(self.uri):
            opening.knock(self.uri)
        else:
            opening.prepare_database_access()
        try:
            if self.database:
                with opening.creator(self.database):
                    if not opening.holds_something(self.database):
                        opening.create(self.database)
                    opening.look_into(self.database)
                    self.client = self._connect()
            else:
                self.client = self._connect()
        except UserError:
            raise
        except Timeout as error:
            raise UserError(f"cannot open the store {self.shown_uri}: another process is making it.") from error
        except Exception as error:  # SQLAlchemy's, Alembic's, MLflow's: it has no common base
            raise opening.unopened(self.uri, error) from error

    def _connect(self) -> MlflowClient:
        client = MlflowClient(self.uri)
        client.search_experiments(max_results=1)
        return client

    @property
    def shown_uri(self) -> str:
        """The address without a password."""
        return redacted(self.uri)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """What the store raises as a UserError; a line where it takes long."""
        if self._asking:
            yield
            return
        self._asking = True
        try:
            with waiting(f"the store {self.shown_uri}", self.warn):
                yield
        except (MlflowException, OSError) as error:
            unread = "cannot be read" if "cannot be None" in str(error) else "does not answer"  # a fault of a row
            verb = "refuses" if refused(error) else unread
            raise UserError(f"the store {self.shown_uri} {verb}: {reason_of(error)}.") from error
        finally:
            self._asking = False

    def experiment(self, name: str | None) -> str:
        """The id of an experiment, created if need be with its artifacts beside the database.

        Raises UserError for a name that is none.
        """
        if name is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        if found is None:
            root = self.database.parent if self.database else Path.cwd()
            served = opening.served(self.uri)
            folder = _folder_of(name)
            place = None if served else (root.resolve() / "mlruns" / folder).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=place))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise UserError(
                f"the experiment '{name}' has been deleted in MLflow; restore it or name another: --experiment"
            )
        if self.database and found.artifact_location.startswith("mlflow-artifacts:"):
            raise UserError(f"the experiment '{name}' belongs to an MLflow server; name another: --experiment")
        return str(found.experiment_id)

    def create(
        self,
        experiment: str | None,
        name: str,
        *,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        dataset: Mapping[str, str] | None = None,
        parent: str | None = None,
    ) -> RunWriter:
        """Starts a run. Its name is `name`-xxxxxx with the first digits of its id if `name` ends in a dash."""
        every = {
            **tags, **origin(), "aelab.process": this_process(),
            **({"mlflow.parentRunId": parent} if parent else {}), **({"aelab.offline": "yes"} if self.offline else {}),
        }  # fmt: skip
        with self.asking():
            self.mark_dead()
            created = self.client.create_run(self.experiment(experiment), run_name=name, tags=every)
            run_id = created.info.run_id
            try:
                if name.endswith("-"):
                    self.client.update_run(run_id, name=name + run_id[:6])
                self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
                if dataset:
                    self.client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [])])
                return RunWriter(self.client, self.get(run_id), warn=self.warn)
            except BaseException as error:
                if self.database or isinstance(error, UserError) or refused(error):  # else it does not answer
                    with suppress(Exception):
                        self.client.set_terminated(run_id, "FAILED")
                raise

    def reopen(self, info: RunInfo, begin: bool = True) -> RunWriter:
        """Goes on with a run: it is RUNNING again (unless `begin` comes later), and what it has logged is not logged twice.

        Raises UserError if another process is writing it.
        """
        with self.asking():
            run = RunWriter(self.client, info, again=True, warn=self.warn)
            if begin:
                self.begin(run)
            return run

    def begin(self, run: RunWriter) -> None:
        """Marks a run that was opened again as running, in this process."""
        with self.asking():
            offline = {"aelab.offline": "yes"} if run.info.tags.get("aelab.offline") else {}
            tags = {"aelab.process": this_process(), "aelab.reason": "", **offline}
            self.client.log_batch(run.id, tags=[RunTag(key, value) for key, value in tags.items()])
            self.client.update_run(run.id, status="RUNNING")

    @contextmanager
    def held(self, info: RunInfo, force: bool = False) -> Iterator[RunInfo]:
        """A run that no other process can write while the block lasts, as it is now.

        Raises UserError if one does: on this machine its lock says so, of another machine only the status tells; `force` goes on
        there.
        """
        process = info.tags.get("aelab.process", "")
        held = hold(run_folder(info), info.name, process)
        try:
            info = self.get(info.id)
            host = process.partition(" ")[0]
            if info.status == "RUNNING" and not local_path(info) and host != platform.node() and not force:
                raise UserError(
                    f"{info.name} is running on {host or 'another machine'}, by what the store says.",
                    f"If that has died: aelab resume {info.id[:8]} --force",
                )
            yield info
        finally:
            held.release()

    def mark_dead(self) -> list[RunInfo]:
        """Marks the runs as FAILED whose process on this machine ended without a word, and returns them."""
        dead = []
        for info in self.runs("attributes.status = 'RUNNING'"):
            try:
                folder = local_path(info) or cache_folder(info.id)  # nothing is read in it; the lock is beside it
            except UserError as problem:  # of one run: the others are listed
                self.warn(f"{info.name or info.id[:8]}: {problem}")
                continue
            if not is_gone(info.tags.get("aelab.process", ""), folder):
                continue
            if self.get(info.id).status == "RUNNING":  # still: it may have ended well since it was listed
                reason = f"{WITHOUT_A_WORD}: killed, out of memory, or the machine went down"
                with suppress(MlflowException):  # a store that is read only
                    self.client.log_batch(info.id, tags=[RunTag("aelab.reason", reason)])
                    self.client.set_terminated(info.id, "FAILED")
                    dead.append(info)
        return dead

    def annotate(self, info: RunInfo) -> RunWriter:
        """Opens a run to add figures and pictures to it; its status stays what it is."""
        return RunWriter(self.client, info, training=False, warn=self.warn)

    def add_metrics(self, info: RunInfo, figures: Mapping[str, float]) -> None:
        """Logs figures of a finished run at step 0, only those that it does not have."""
        run = self.annotate(info)
        run.metrics({key: value for key, value in figures.items() if info.metrics.get(key) != value}, 0)
        run.close()

    def get(self, run_id: str) -> RunInfo:
        with self.asking():
            return run_info(self.client.get_run(run_id))

    def newest(self, **tags: str) -> RunInfo | None:
        """The newest run with these of aelab's tags, such as identity="...", whatever became of it."""
        wanted = " and ".join(f"tags.`aelab.{name}` = '{value}'" for name, value in tags.items())
        return next(iter(self.runs(wanted)), None)

    def curve(self, info: RunInfo, metric: str) -> list[tuple[int, float]]:
        """All points (step, value) of a figure in the order of its steps."""
        with self.asking():
            names = [metric, *aliases.old_metrics(metric)]
            points = [point for name in names for point in self.client.get_metric_history(info.id, name)]
            return sorted((point.step, point.value) for point in points)

    def runs(
        self, filter_string: str = "", experiment: str | None = None, view: int = ViewType.ACTIVE_ONLY
    ) -> list[RunInfo]:
        """The store's aelab runs, newest first; the deleted ones in another `view`.

        Raises UserError where MLflow does not understand the filter.
        """
        found, token = [], None
        with self.asking():
            experiments = [e for e in self.client.search_experiments() if experiment in (None, e.name)]
            while experiments:
                try:
                    page = self.client.search_runs(
                        [e.experiment_id for e in experiments], filter_string, view, 1000,
                        ["attributes.start_time DESC"], token,
                    )  # fmt: skip
                except MlflowException as error:
                    if not (filter_string and refused(error)):
                        raise
                    raise UserError(f"MLflow does not accept this filter: {reason_of(error)}.", code=2) from error
                found += [run_info(run) for run in page]
                token = page.token
                if not token:
                    break
        return [run for run in found if run.recipe]

    def find(self, name: str) -> RunInfo:
        """A run by id, prefix of an id, name, recipe (its newest finished run), path of its folder, or models:/NAME@ALIAS."""
        if name.startswith("models:"):
            return self.get(registry.run_of(self.client, name))
        runs = self.runs()
        in_path = re.findall(r"[0-9a-f]{32}", name) if os.sep in name else []
        wanted = in_path[-1] if in_path else name
        exact = [run for run in runs if wanted in (run.id, run.name)]
        trained = [run for run in runs if run.recipe == wanted and run.tags.get("aelab.kind") == "run"]
        finished = [run for run in trained if run.status == "FINISHED"]
        finished = [run for run in finished if not run.parent] or finished  # those of a sweep come last
        prefixed = [run for run in runs if len(wanted) > 1 and run.id.startswith(wanted.lower())]
        for matches in (exact, finished[:1], prefixed):
            if len(matches) == 1:
                return matches[0]
            if matches:
                listed = ", ".join(f"{run.id[:12]} ({run.name})" for run in matches[:4])
                raise UserError(
                    f"'{name}' fits {len(matches)} runs: {listed}{' ...' if len(matches) > 4 else ''}",
                    "Name one by its id.",
                    code=2,
                )
        if trained:
            raise UserError(f"no run of {name} has finished; give the run's id: aelab runs", code=2)
        raise UserError(f"there is no run '{name}' in {self.shown_uri}.", "See what is there: aelab runs", code=2)

    def remove(self, info: RunInfo) -> None:
        """Takes a run from the lists, and what it is registered as. MLflow keeps its files until its garbage is collected."""
        with self.asking():
            for name, version in registry.versions_of(self.client, info):
                self.client.delete_model_version(name, version)
            self.client.delete_run(info.id)

    def models(self, info: RunInfo) -> list[str]:
        """The addresses of the models that a run is registered as: models:/NAME/VERSION."""
        with self.asking():
            return [f"models:/{name}/{version}" for name, version in registry.versions_of(self.client, info)]

    def register(self, info: RunInfo, name: str, alias: str) -> str:
        """Makes a run's files a version of a model in MLflow's registry and points the alias to it; returns the version.

        Raises UserError for a name or an alias that MLflow does not accept.
        """
        return registry.register(self.client, info, name, alias)

    def folder(self, info: RunInfo, *parts: str) -> Path:
        """The run's files on this machine: its artifact folder or, of a server, a copy of what is needed and of `parts`."""
        folder = run_folder(info)
        return folder if local_path(info) else copies.copy(self.client, info, parts)

    def page(self, experiment_id: str, base: str) -> str:
        """The address of an experiment in the UI, in the mode for model training."""
        return f"{base.rstrip('/')}/#/experiments/{experiment_id}?workflowType=machine_learning"

    def restoring(self, info: RunInfo) -> str:
        """The command that brings a removed run back."""
        return restoring(self.client, info.id)


def _folder_of(experiment: str) -> str:
    """The name of an experiment's folder: its own name, or one made of it with a digest, so that no two share a folder.

    Raises UserError for a name that would lead elsewhere.
    """
    bare = experiment.strip(" .")
    if not bare or not experiment.isprintable() or set(experiment) & set("/\\") or len(experiment) > LONGEST:
        raise UserError(
            f"'{experiment[:60]}' is no name for an experiment (--experiment, MLFLOW_EXPERIMENT_NAME).",
            f"Give it letters or digits, at most {LONGEST} signs, no / and no \\", code=2,
        )  # fmt: skip
    plain = re.sub(r"[^\w.-]+", "-", experiment)
    if plain == experiment and len(plain) <= 60 and not plain.startswith("."):
        return plain
    return f"{plain.lstrip('.')[:60]}-{hashlib.sha256(experiment.encode()).hexdigest()[:8]}"
