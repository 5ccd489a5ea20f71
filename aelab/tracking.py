"""The door to MLflow, and the only one: where runs are stored, found, written and read."""

import getpass
import json
import logging
import os
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")  # its default blocks for four minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

import mlflow
import PIL.Image
import platformdirs
from filelock import FileLock
from mlflow.entities import Dataset, DatasetInput, Metric, Param, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab.pictures import Picture
from aelab.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

for _name in ("mlflow", "alembic"):
    logging.getLogger(_name).setLevel(logging.ERROR)

EXPERIMENT = "aelab"
FLUSH_SECONDS = 2.0
MOST_METRICS = 1000  # that one log_batch takes
Status = Literal["FINISHED", "FAILED", "KILLED"]


@dataclass(frozen=True)
class RunInfo:
    """What the store knows of a run."""

    id: str
    name: str
    status: str
    experiment_id: str
    started: float  # seconds since 1970
    ended: float | None
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: str  # URI

    @property
    def recipe(self) -> str:
        return self.tags.get("aelab.recipe", "")

    @property
    def parent(self) -> str | None:
        return self.tags.get("mlflow.parentRunId")


def _info(run: Any) -> RunInfo:
    info, data = run.info, run.data
    ended = info.end_time / 1000 if info.end_time else None
    return RunInfo(
        info.run_id, info.run_name or "", info.status, info.experiment_id, info.start_time / 1000, ended,
        data.params, data.tags, data.metrics, info.artifact_uri,
    )  # fmt: skip


def local_path(uri: str) -> Path | None:
    """The folder that an artifact URI means on this machine, or None where a server keeps the artifacts."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "file":
        return Path(urllib.request.url2pathname(parts.path))
    return Path(uri) if parts.scheme == "" else None


class Store:
    """An MLflow tracking store: --tracking-uri, else MLFLOW_TRACKING_URI, else mlflow.db in the working directory."""

    def __init__(self, uri: str | None = None) -> None:
        self.uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
        self.database = Path(self.uri.removeprefix("sqlite:///")) if self.uri.startswith("sqlite:///") else None
        if self.uri.startswith(("http://", "https://")):
            self._knock()
        mlflow.set_tracking_uri(self.uri)
        try:
            if self.database:  # processes that create one SQLite store at once would break its migration
                with FileLock(f"{self.database}.lock", timeout=60):
                    self.client = MlflowClient(self.uri)
                    self.client.search_experiments(max_results=1)
            else:
                self.client = MlflowClient(self.uri)
                self.client.search_experiments(max_results=1)
        except OSError as error:
            raise Problem(f"cannot open the store {self.shown_uri}: {error}") from error
        except Exception as error:  # SQLAlchemy's, Alembic's, MLflow's: it has no common base
            reason = str(error).strip().splitlines()[0]
            raise Problem(f"cannot open the store {self.shown_uri}: {reason}") from error

    @property
    def shown_uri(self) -> str:
        """The address without a password."""
        return re.sub(r"//[^@/]*@", "//", self.uri)

    def _knock(self) -> None:
        try:
            with urllib.request.urlopen(self.uri.rstrip("/") + "/health", timeout=5):
                return
        except urllib.error.HTTPError:
            return  # someone answers; MLflow will say what is wrong
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise Problem(
                f"no MLflow server answers at {self.shown_uri}: {reason}",
                "Start it, correct MLFLOW_TRACKING_URI or --tracking-uri, or unset them to log into ./mlflow.db",
            ) from error

    def experiment(self, name: str | None) -> str:
        """The id of an experiment, created if need be with its artifacts beside the database."""
        name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
        found = self.client.get_experiment_by_name(name)
        if found is None:
            root = self.database.parent if self.database else Path.cwd()
            served = self.uri.startswith(("http://", "https://"))
            place = None if served else (root.resolve() / "mlruns" / re.sub(r"[^\w.-]+", "-", name)).as_uri()
            try:
                return str(self.client.create_experiment(name, artifact_location=place))
            except MlflowException:  # another process was faster
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        if found.lifecycle_stage != "active":
            raise Problem(f"the experiment '{name}' has been deleted in MLflow; restore it or name another: --experiment")
        if self.database and found.artifact_location.startswith("mlflow-artifacts:"):
            raise Problem(f"the experiment '{name}' belongs to an MLflow server; name another: --experiment")
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
    ) -> "Run":
        """Starts a run. Its name is `name`-xxxxxx with the first digits of its id if `name` ends in a dash."""
        every = {**tags, **_origin(), **({"mlflow.parentRunId": parent} if parent else {})}
        created = self.client.create_run(self.experiment(experiment), run_name=name, tags=every)
        run_id = created.info.run_id
        if name.endswith("-"):
            self.client.update_run(run_id, name=name + run_id[:6])
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])
        if dataset:
            self.client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), [])])
        return Run(self, self.get(run_id))

    def reopen(self, info: RunInfo) -> "Run":
        """Goes on with a run: it is RUNNING again, and what it has logged already is not logged twice."""
        self.client.update_run(info.id, status="RUNNING")
        return Run(self, info, again=True)

    def annotate(self, info: RunInfo) -> "Run":
        """Opens a run to add figures and pictures to it; its status stays what it is."""
        return Run(self, info)

    def add_figures(self, info: RunInfo, figures: Mapping[str, float]) -> None:
        """Logs figures of a finished run at step 0, only those that it does not have."""
        run = self.annotate(info)
        run.metrics({key: value for key, value in figures.items() if info.metrics.get(key) != value}, 0)
        run.close()

    def get(self, run_id: str) -> RunInfo:
        return _info(self.client.get_run(run_id))

    def runs(self, filter_string: str = "", experiment: str | None = None) -> list[RunInfo]:
        """The store's aelab runs, newest first. Raises Problem where MLflow does not understand the filter."""
        experiments = [e for e in self.client.search_experiments() if experiment in (None, e.name)]
        found, token = [], None
        while experiments:
            try:
                page = self.client.search_runs(
                    [e.experiment_id for e in experiments], filter_string, ViewType.ACTIVE_ONLY, 1000,
                    ["attributes.start_time DESC"], token,
                )  # fmt: skip
            except MlflowException as error:
                raise Problem(f"MLflow does not accept this filter: {str(error).splitlines()[0]}", code=2) from error
            found += [_info(run) for run in page]
            token = page.token
            if not token:
                break
        return [run for run in found if run.recipe]

    def find(self, name: str) -> RunInfo:
        """A run by id, unique prefix of an id, name, recipe (its newest finished run) or path of its folder."""
        runs = self.runs()
        in_path = re.findall(r"[0-9a-f]{32}", name) if os.sep in name else []
        wanted = in_path[-1] if in_path else name
        exact = [run for run in runs if wanted in (run.id, run.name)]
        same_recipe = [run for run in runs if run.recipe == wanted and "mlflow.parentRunId" not in run.tags]
        finished = [run for run in same_recipe or (r for r in runs if r.recipe == wanted) if run.status == "FINISHED"]
        prefixed = [run for run in runs if len(wanted) > 1 and run.id.startswith(wanted.lower())]
        for matches in (exact, finished[:1], prefixed):
            if len(matches) == 1:
                return matches[0]
            if matches:
                listed = ", ".join(f"{run.id[:12]} ({run.name})" for run in matches[:4])
                raise Problem(f"'{name}' fits {len(matches)} runs: {listed}{' ...' if len(matches) > 4 else ''}", code=2)
        if same_recipe:
            raise Problem(f"no run of {name} has finished; give the run's id: aelab runs", code=2)
        raise Problem(f"there is no run '{name}' in {self.shown_uri}.", "See what is there: aelab runs", code=2)

    def folder(self, info: RunInfo) -> Path:
        """The run's files on this machine: its artifact folder, or a copy where a server keeps that."""
        local = local_path(info.artifacts)
        if local:
            return local
        cache = cache_folder(info.id)
        for part in ("config.json", "checkpoints"):
            if not (cache / part).exists():
                cache.mkdir(parents=True, exist_ok=True)
                try:
                    self.client.download_artifacts(info.id, part, str(cache))
                except Exception as error:  # MLflow's, requests', the file system's
                    raise Problem(f"cannot fetch {part} of run {info.name}: {str(error).splitlines()[0]}") from error
        return cache

    def page(self, experiment_id: str, base: str) -> str:
        """The address of an experiment in the UI, in the mode for model training."""
        return f"{base.rstrip('/')}/#/experiments/{experiment_id}?workflowType=machine_learning"


def cache_folder(run_id: str) -> Path:
    """Where a run that is tracked by a server keeps its files on this machine."""
    return Path(platformdirs.user_cache_dir("aelab")) / "runs" / run_id


def _origin() -> dict[str, str]:
    """MLflow's own tags for who started a run and from which source."""
    tags = {"mlflow.source.name": "aelab", "mlflow.source.type": "LOCAL"}
    try:
        tags["mlflow.user"] = getpass.getuser()
    except (OSError, KeyError, ImportError):
        pass
    try:
        git = ["git", "rev-parse", "HEAD"]
        tags["mlflow.source.git.commit"] = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
        git = ["git", "status", "--porcelain", "--untracked-files=no"]
        tags["aelab.git_dirty"] = str(bool(subprocess.run(git, capture_output=True, check=True).stdout)).lower()
    except (OSError, subprocess.CalledProcessError):
        pass
    return tags


class Run:
    """One run being written. Nothing here waits for the store: a thread sends what gathers, every two seconds.

    Each point is written to a spool file first and sent once; a point that the store has already is dropped.
    """

    def __init__(self, store: Store, info: RunInfo, again: bool = False) -> None:
        self.id, self.name, self.info = info.id, info.name, info
        self._client = store.client
        self.local = local_path(info.artifacts)
        self.folder = self.local or cache_folder(info.id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(f"cannot write to {self.folder}: {error.strerror}") from error
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._points: list[Metric] = []
        self._jobs: list[Callable[[], None]] = []
        self._stopping = False
        self.trouble = ""  # why the last attempt to send failed
        self._spool_path = self.folder / ("unsent.jsonl" if info.status == "RUNNING" or again else f"unsent-{os.getpid()}.jsonl")
        self._logged: dict[str, set[int]] = {}
        self._drawn: set[tuple[str, int]] = set()
        if again:
            self._recall()
        self._spool = self._spool_path.open("a", encoding="utf-8", buffering=1)
        self._thread = threading.Thread(target=self._send_until_stopped, daemon=True, name="aelab-tracking")
        self._thread.start()

    def _recall(self) -> None:
        """Reads back what the run has logged, and queues what its last process could not send."""
        for key in self.info.metrics:
            self._logged[key] = {point.step for point in self._client.get_metric_history(self.id, key)}
        for entry in self._client.list_artifacts(self.id, "images"):
            if match := re.match(r"(.+)[%+]step[%+](\d+)[%+]", Path(entry.path).name):
                self._drawn.add((match[1].replace("~", "/"), int(match[2])))
        if self._spool_path.exists():
            for line in self._spool_path.read_text(encoding="utf-8").splitlines():
                try:
                    key, value, stamp, step = json.loads(line)
                except ValueError:
                    continue  # the line that was being written when the process died
                self._add(Metric(key, value, stamp, step))

    def _add(self, point: Metric) -> bool:
        steps = self._logged.setdefault(point.key, set())
        if point.step in steps:
            return False
        steps.add(point.step)
        with self._lock:
            self._points.append(point)
        return True

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Queues one point a metric."""
        stamp = int(time.time() * 1000)
        for key, value in values.items():
            if self._add(Metric(key, value, stamp, step)):
                self._spool.write(json.dumps([key, value, stamp, step]) + "\n")

    def stepwise_image(self, key: str, picture: Picture, step: int) -> None:
        """Queues a picture that the UI shows under a slider; the slider starts at step 0."""
        if (key, step) not in self._drawn:
            self._drawn.add((key, step))
            self._queue(lambda: self._client.log_image(self.id, picture, key=key, step=step, synchronous=True))

    def picture(self, path: str, picture: Picture) -> Path:
        """Writes a picture as an artifact and returns where its file is on this machine."""
        return self._artifact(path, lambda target: PIL.Image.fromarray(picture).save(target))

    def figure(self, path: str, figure: "Figure") -> Path:
        """Writes a matplotlib figure as an artifact."""
        return self._artifact(path, lambda target: figure.savefig(target))

    def text(self, path: str, text: str) -> Path:
        """Writes a text file as an artifact."""
        return self._artifact(path, lambda target: target.write_text(text, encoding="utf-8"))

    def json(self, path: str, value: Any) -> Path:
        return self.text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def _artifact(self, path: str, write: Callable[[Path], Any]) -> Path:
        """A file in the run's folder; where a server keeps the artifacts, it is sent there too."""
        target = self.folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(target)
        except OSError as error:
            raise Problem(f"cannot write {target}: {error.strerror or error}") from error
        if not self.local:
            parent = os.path.dirname(path) or None
            self._queue(lambda: self._client.log_artifact(self.id, str(target), parent))
        return target

    def tags(self, tags: Mapping[str, str]) -> None:
        self._queue(lambda: self._client.log_batch(self.id, tags=[RunTag(k, str(v)) for k, v in tags.items()]))

    def _queue(self, job: Callable[[], Any]) -> None:
        with self._lock:
            self._jobs.append(job)

    def _send_until_stopped(self) -> None:
        while not self._stopping:
            self._wake.wait(FLUSH_SECONDS)
            self._send()

    def _send(self) -> bool:
        """Sends all that is queued; what fails stays queued. True if nothing is left."""
        while True:
            with self._lock:
                points, jobs = self._points[:MOST_METRICS], self._jobs[:1]
            if not points and not jobs:
                self.trouble = ""
                return True
            try:
                if points:
                    self._client.log_batch(self.id, metrics=points)
                    with self._lock:
                        del self._points[: len(points)]
                if jobs:
                    jobs[0]()
                    with self._lock:
                        del self._jobs[0]
            except Exception as error:  # whatever the store, the network or the disk raises: later, then
                self.trouble = (str(error).strip() or type(error).__name__).splitlines()[0]
                return False

    def close(self, status: Status | None = None) -> None:
        """Sends what is left and ends the run with a status, or leaves its status as it is.

        Raises Problem if the store does not take it; the points then stay in the spool file.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._spool.close()
        try:
            sent = self._send() or self._send()
            if sent:
                self._spool_path.unlink(missing_ok=True)
            if status:
                self._upload()
                self._client.set_terminated(self.id, status)
        except Exception as error:
            sent, self.trouble = False, str(error).splitlines()[0]
        if not sent:
            raise Problem(
                f"the store did not take everything of run {self.name}: {self.trouble}",
                f"What is missing is kept in {self._spool_path}; aelab resume {self.id[:8]} sends it.",
            )

    def _upload(self) -> None:
        checkpoints = self.folder / "checkpoints"
        if not self.local and checkpoints.exists():
            self._client.log_artifacts(self.id, str(checkpoints), "checkpoints")


@contextmanager
def served(store: Store, port: int) -> "Iterator[subprocess.Popen[bytes]]":
    """MLflow's web server for a store, on this machine alone, ready to answer; it ends with the block.

    One worker starts three times as fast as MLflow's four. Raises Problem if the port is taken or it does not come up.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Problem(f"port {port} is taken: {error.strerror}.", f"Type: aelab ui --port {port + 1}") from error
    root = store.database.parent if store.database else Path.cwd()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store.uri,  # not among the arguments, which every user of the machine can read
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (root.resolve() / "mlruns").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise Problem(f"MLflow's server ended with exit code {server.returncode}.", "Try: mlflow ui")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.25)
        yield server
    finally:
        server.terminate()
        server.wait()
