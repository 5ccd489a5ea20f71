"""The tracking store: opens it, searches it, and starts runs in it."""

import itertools
import os
import platform
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout
from mlflow.entities import Dataset, DatasetInput, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab import aliases
from aelab.errors import UserError, redacted
from aelab.tracking import copies, models, opening, registry, system
from aelab.tracking.experiments import experiment_id
from aelab.tracking.info import RunInfo, cache_folder, local_path, run_folder, run_info
from aelab.tracking.naming import candidates, equal, find_run
from aelab.tracking.opening import NoStoreError
from aelab.tracking.owner import PROCESS_DIED, HeldError, hold, is_gone, origin, slurm_job, this_process
from aelab.tracking.pictures import read_pictures
from aelab.tracking.sender import restore_command
from aelab.tracking.trouble import bad_filter, reason_of, refused, waiting_for_store, written_once
from aelab.tracking.writer import RunWriter

if TYPE_CHECKING:
    from aelab.figures import Picture

RUNS_PER_REQUEST = 1000
NEWEST_FIRST = ["attributes.start_time DESC"]


class Store:
    """An MLflow tracking store: --tracking-uri, else MLFLOW_TRACKING_URI, else mlflow.db in the working directory.

    `offline` means mlflow.db, and marks its runs for `aelab sync`; with an address it is a UserError. A database that does
    not exist is created, or with `create=False` NoStoreError is raised. `warn` is called for long waits and outages. `typed`
    is what a command to type next needs to find the store again: the option, if the address was passed, and nothing if the
    environment names it.
    """

    def __init__(
        self,
        uri: str | None = None,
        offline: bool = False,
        create: bool = True,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        if offline and uri:
            raise UserError(
                "--offline keeps runs in mlflow.db of this folder: leave it out, or --tracking-uri.", code=2
            )
        here = f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        typed = None if offline else uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.uri, self.offline, self.warn = opening.checked(typed or here), offline, warn
        self.typed = "" if offline or not uri else f" --tracking-uri {shlex.quote(redacted(uri))}"  # for a next command
        self._asking = False
        self.database = opening.database_of(self.uri)
        if self.database and not create and not opening.has_content(self.database):
            if typed:
                raise NoStoreError(
                    f"there is no store at {self.shown_uri}.",
                    f"The first training creates it: aelab train vae --tracking-uri {self.shown_uri}",
                    code=2,
                )
            raise NoStoreError(
                "there are no runs in this folder: each folder keeps its own, in its mlflow.db.",
                "Go to the folder where you trained, name its store with --tracking-uri, or start here: aelab train vae",
                code=2,
            )
        if not opening.is_server(self.uri):
            opening.prepare_database_access()  # takes long on a busy machine, which is no fault of the store
        with waiting_for_store(self.shown_uri, warn, is_file=self.database is not None):
            self._open()

    def _open(self) -> None:
        if opening.is_server(self.uri):
            opening.ping(self.uri)
        try:
            if self.database:
                with opening.creation_lock(self.database):
                    if not opening.has_content(self.database):
                        opening.create(self.database)
                    opening.check_database(self.database)
                    self.client = self._connect()
            else:
                if opening.is_database_server(self.uri):
                    opening.check_database_server(self.uri)
                self.client = self._connect()
        except UserError:
            raise
        except Timeout as error:
            raise UserError(f"cannot open the store {self.shown_uri}: another process is creating it.") from error
        except Exception as error:  # of SQLAlchemy, Alembic or MLflow, which have no common base
            raise opening.cannot_open(self.uri, error) from error

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
        """Turns the errors of the store into UserErrors, and warns if the store takes long."""
        if self._asking:
            yield
            return
        self._asking = True
        try:
            with waiting_for_store(self.shown_uri, self.warn, is_file=self.database is not None):
                yield
        except (MlflowException, OSError) as error:
            unread = "cannot be read" if "cannot be None" in str(error) else "does not answer"  # for an invalid row
            verb = "refuses" if refused(error) else unread
            raise UserError(f"the store {self.shown_uri} {verb}: {reason_of(error)}.") from error
        finally:
            self._asking = False

    def experiment(self, name: str | None) -> str:
        """The id of an experiment, which is created if necessary. Raises UserError for an invalid name."""
        return experiment_id(self.client, name, self.database, opening.is_server(self.uri))

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
        """Starts a run. If `name` ends in a dash, the first six digits of the run's id are appended."""
        watch = system.wanted()
        every = {**tags, **origin(), "aelab.process": this_process()}
        if parent:
            every["mlflow.parentRunId"] = parent
        if job := slurm_job():
            every["aelab.slurm_job"] = job
        if self.offline:
            every["aelab.offline"] = "yes"
        with self.asking():
            self.mark_dead()
            created = self.client.create_run(self.experiment(experiment), run_name=name, tags=every)
            run_id = created.info.run_id
            try:
                if name.endswith("-"):
                    self.client.update_run(run_id, name=name + run_id[:6])
                self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
                if dataset:
                    self.log_dataset(run_id, DatasetInput(Dataset(**dataset), []))
                return RunWriter(self.client, self.get(run_id), warn=self.warn, typed=self.typed, system_metrics=watch)
            except BaseException as error:
                if self.database or isinstance(error, UserError) or refused(error):  # not a server that is away
                    with suppress(Exception):
                        self.client.set_terminated(run_id, "FAILED")
                raise

    def log_dataset(self, run_id: str, dataset: DatasetInput) -> None:
        """Logs the dataset of a run, which another run may add at this moment too."""
        written_once(lambda: self.client.log_inputs(run_id, [dataset]))

    def reopen(self, info: RunInfo, begin: bool = True) -> RunWriter:
        """Reopens a run; what it has logged is not logged again. With `begin` it is marked as RUNNING at once.

        Raises UserError if another process is writing it.
        """
        with self.asking():
            run = RunWriter(
                self.client, info, reopened=True, warn=self.warn, typed=self.typed, system_metrics=system.wanted()
            )
            if begin:
                self.begin(run)
            return run

    def begin(self, run: RunWriter) -> None:
        """Marks a reopened run as RUNNING in this process."""
        with self.asking():
            offline = {"aelab.offline": "yes"} if run.info.tags.get("aelab.offline") else {}
            job = {"aelab.slurm_job": slurm_job()} if slurm_job() or run.info.tags.get("aelab.slurm_job") else {}
            tags = {"aelab.process": this_process(), "aelab.reason": "", "aelab.model": "", **job, **offline}
            self.client.log_batch(run.id, tags=[RunTag(key, value) for key, value in tags.items()])
            self.client.update_run(run.id, status="RUNNING")

    @contextmanager
    def held(self, info: RunInfo, force: bool = False) -> Iterator[RunInfo]:
        """Locks a run for the block, so that no other process writes it, and yields its present state in the store.

        Raises UserError if another process is writing it. On this machine the run's lock tells; on another one only the status
        RUNNING does, which `force` overrides.
        """
        process = info.tags.get("aelab.process", "")
        held = hold(run_folder(info), info.name, process)
        try:
            info = self.get(info.id)
            host = process.partition(" ")[0]
            if info.status == "RUNNING" and not local_path(info) and host != platform.node() and not force:
                raise UserError(
                    f"{info.name} is running on {host or 'another machine'}, according to the store.",
                    f"If that process is dead: aelab resume {info.id[:8]} --force{self.typed}",
                )
            yield info
        finally:
            held.release()

    def mark_dead(self) -> list[RunInfo]:
        """Marks as FAILED the runs whose process on this machine has died, and returns them."""
        dead = []
        here = f"attributes.status = 'RUNNING' and tags.`aelab.process` LIKE '{platform.node()} %'"
        for info in self.runs(here):
            try:
                folder = local_path(info) or cache_folder(info.id)  # only its name: the lock is beside it
            except UserError as problem:  # the other runs are still checked
                self.warn(f"{info.name or info.id[:8]}: {problem}")
                continue
            if not is_gone(info.tags.get("aelab.process", ""), folder):
                continue
            if self._mark_died(info, "killed, out of memory, or the machine went down"):
                dead.append(info)
        return dead

    def mark_lost(self, info: RunInfo, why: str, wait: float = 0.0) -> None:
        """Marks a run as FAILED whose process has ended on whatever machine, as its launcher says; not if it holds the lock.

        On this machine a process may take a moment to end: `wait` says how many seconds to wait for it.
        """
        process, end = info.tags.get("aelab.process", ""), time.monotonic() + wait
        here = process.partition(" ")[0] == platform.node()
        while here and time.monotonic() < end and not is_gone(process, local_path(info) or cache_folder(info.id)):
            time.sleep(0.2)
        with suppress(HeldError):
            held = hold(run_folder(info), info.name)
            try:
                self._mark_died(info, why)
            finally:
                held.release()

    def _mark_died(self, info: RunInfo, why: str) -> bool:
        if self.get(info.id).status != "RUNNING":  # it may have ended since it was listed
            return False
        with suppress(MlflowException):  # the store may be read-only
            self.client.log_batch(info.id, tags=[RunTag("aelab.reason", f"{PROCESS_DIED}: {why}")])
            self.client.set_terminated(info.id, "FAILED")
            return True
        return False

    def annotate(self, info: RunInfo) -> RunWriter:
        """Opens a run to add metrics and pictures; its status does not change."""
        return RunWriter(self.client, info, training=False, warn=self.warn)

    def add_metrics(self, info: RunInfo, metrics: Mapping[str, float], dataset: tuple[str, str]) -> None:
        """Logs metrics of a finished run at step 0, except those that it already has with this value.

        They are also those of its LoggedModel, if it has one, on a `dataset`: its name and its digest.
        """
        with self.asking():
            model = models.current(self.client, info)
        logged = {each.key: each.value for each in model.metrics or []} if model else info.metrics
        of = (model.model_id, *dataset) if model else ()
        run = self.annotate(info)
        run.metrics({key: value for key, value in metrics.items() if logged.get(key) != value}, 0, of)
        run.close()

    def tag(self, info: RunInfo, tags: Mapping[str, str]) -> None:
        """Sets tags of a run that has ended."""
        with self.asking():
            self.client.log_batch(info.id, tags=[RunTag(key, value) for key, value in tags.items()])

    def get(self, run_id: str) -> RunInfo:
        with self.asking():
            return run_info(self.client.get_run(run_id))

    def newest(self, **tags: str) -> RunInfo | None:
        """The newest run with these tags of aelab's, such as identity="...", of any status."""
        wanted = " and ".join(f"tags.`aelab.{name}` = '{value}'" for name, value in tags.items())
        return next(iter(self.runs(wanted, limit=1)), None)

    def curve(self, info: RunInfo, metric: str) -> list[tuple[int, float]]:
        """All points (step, value) of a metric, sorted by step."""
        with self.asking():
            names = [metric, *aliases.old_metrics(metric, info.recipe)]
            points = [point for name in names for point in self.client.get_metric_history(info.id, name)]
            return sorted((point.step, point.value) for point in points)

    def runs(
        self,
        where: str = "",
        *,
        typed: str = "",
        recipe: str | None = None,
        view: int = ViewType.ACTIVE_ONLY,
        limit: int | None = None,
    ) -> list[RunInfo]:
        """aelab's runs in the store, newest first, at most `limit`; see `each`."""
        at_once = RUNS_PER_REQUEST if limit is None else min(limit, RUNS_PER_REQUEST)
        return list(itertools.islice(self.each(where, typed, recipe, view, at_once), limit))

    def each(
        self,
        where: str = "",
        typed: str = "",
        recipe: str | None = None,
        view: int = ViewType.ACTIVE_ONLY,
        at_once: int = 50,
    ) -> Iterator[RunInfo]:
        """aelab's runs in the store, newest first, fetched as they are asked for, so many in a request.

        `where` and `typed` are filters of MLflow's, of which the store evaluates both; `typed` is the user's. `view` can ask
        for deleted runs. Raises UserError if MLflow does not accept what was typed.
        """
        ours = equal("tags.`aelab.recipe`", recipe) if recipe else "tags.`aelab.recipe` LIKE '%'"
        every = " and ".join(each for each in (ours, where, typed.strip()) if each)  # typed last: it may be unfinished
        seen: set[str] = set()
        with self.asking():
            ids = [experiment.experiment_id for experiment in self.client.search_experiments()]
        token, more = None, bool(ids)
        while more:
            with self.asking():
                try:
                    page = self.client.search_runs(ids, every, view, at_once, NEWEST_FIRST, token)
                except MlflowException as error:
                    if not (typed and refused(error)):
                        raise
                    raise bad_filter(typed, error) from error
                found = [run_info(run) for run in page if run.info.run_id not in seen]
            seen |= {info.id for info in found}  # a run that has just begun moves the last one into the next page
            yield from (info for info in found if info.recipe)
            token, more = page.token, bool(page.token)

    def named(self, name: str) -> list[RunInfo]:
        """The runs with this name, newest first."""
        return [info for info in self.runs(equal("attributes.run_name", name)) if info.name == name]

    def find(self, name: str) -> RunInfo:
        """A run by id, start of an id, name, recipe (its newest finished run), path of its folder, or models:/NAME@ALIAS.

        Raises UserError if there is none, or more than one.
        """
        if name.startswith("models:"):
            return self.get(registry.run_of(self.client, name))
        return find_run(name, candidates(name, self.runs), self.shown_uri)

    def remove(self, info: RunInfo) -> None:
        """Deletes a run, its registrations and its LoggedModels. MLflow hides the run, and keeps its files until `mlflow gc`.

        MLflow restores runs but no models; `aelab runs register` makes the model of a restored run anew.
        """
        with self.asking():
            for name, version in registry.versions_of(self.client, info):
                self.client.delete_model_version(name, version)
            with suppress(MlflowException):  # a server may have no such models
                for model in models.models_of(self.client, info):
                    self.client.delete_logged_model(model.model_id)
            self.client.delete_run(info.id)

    def models(self, info: RunInfo) -> list[str]:
        """The addresses of the models that a run is registered as: models:/NAME/VERSION."""
        with self.asking():
            return [f"models:/{name}/{version}" for name, version in registry.versions_of(self.client, info)]

    def has_model(self, info: RunInfo) -> bool:
        """Whether MLflow has the kept weights of a run as a LoggedModel."""
        with self.asking():
            return models.current(self.client, info) is not None

    def register(self, info: RunInfo, name: str, alias: str) -> str:
        """Registers a run's LoggedModel as a new version of a model, and points the alias to it. Returns the version.

        Raises UserError for a name or an alias that MLflow does not accept.
        """
        return registry.register(self.client, info, name, alias)

    def folder(self, info: RunInfo, *parts: str) -> Path:
        """The run's files on this machine: its artifact folder or, from a server, a copy of what is needed and of `parts`."""
        folder = run_folder(info)
        return folder if local_path(info) else copies.copy(self.client, info, parts)

    def pictures(self, info: RunInfo, key: str) -> "dict[int, Picture]":
        """The pictures (H, W, 3) that a run logged under a key for MLflow's step slider, by step."""
        with self.asking():
            return read_pictures(self.folder(info, "images") / "images", key)

    def page(self, experiment_id: str, base: str) -> str:
        """The address of an experiment in MLflow's pages, in their mode for model training."""
        return f"{base.rstrip('/')}/#/experiments/{experiment_id}?workflowType=machine_learning"

    def restore_command(self, info: RunInfo) -> str:
        """The command that restores a removed run."""
        return restore_command(self.client, info.id)
