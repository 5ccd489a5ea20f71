"""One run being written to MLflow: nothing in the training waits for it, nothing is sent twice."""

import json
import os
import re
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL.Image
import platformdirs
from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from aelab.pictures import Picture
from aelab.problem import Problem

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
    def seconds(self) -> float | None:
        """What the training took, or from start to end where it did not say; None as long as it runs."""
        if "aelab.seconds" in self.tags:
            return float(self.tags["aelab.seconds"])
        return round(self.ended - self.started, 1) if self.ended else None

    @property
    def parent(self) -> str | None:
        return self.tags.get("mlflow.parentRunId")


def run_info(run: Any) -> RunInfo:
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


def cache_folder(run_id: str) -> Path:
    """Where a run that is tracked by a server keeps its files on this machine."""
    return Path(platformdirs.user_cache_dir("aelab")) / "runs" / run_id


class Run:
    """One run being written. Nothing here waits for the store: a thread sends what gathers, every two seconds.

    Each point is written to a spool file first and sent once; a point that the store has already is dropped.
    """

    def __init__(self, client: MlflowClient, info: RunInfo, again: bool = False) -> None:
        self.id, self.name, self.info = info.id, info.name, info
        self._client = client
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
        self._spool_path = self.folder / (
            "unsent.jsonl" if info.status == "RUNNING" or again else f"unsent-{os.getpid()}.jsonl"
        )
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

    def picture(self, path: str, picture: "Picture | Figure") -> Path:
        """Writes a picture, an array or a matplotlib figure, as an artifact and returns where its file is on this machine."""
        if isinstance(picture, np.ndarray):
            return self._artifact(path, lambda target: PIL.Image.fromarray(picture).save(target))
        return self._artifact(path, picture.savefig)

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
            self._queue(lambda: self._client.log_artifact(self.id, str(target), path.rpartition("/")[0] or None))
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
            except Exception as error:  # noqa: BLE001  # whatever the store, the network or the disk raises: later, then
                self.trouble = (str(error).strip() or type(error).__name__).splitlines()[0]
                return False

    def close(self, status: Status | None = None) -> None:
        """Sends what is left and ends the run with a status, or leaves its status as it is.

        Raises Problem if the store does not take it; the points then stay in the spool file, and the run is FAILED.
        """
        self._stopping = True
        self._wake.set()
        self._thread.join()
        self._spool.close()
        try:
            sent = self._send() or self._send()
            if sent:
                self._spool_path.unlink(missing_ok=True)
            if status and not self.local:
                self._client.log_artifacts(self.id, str(self.folder))
            if status:
                self._client.set_terminated(self.id, status if sent else "FAILED")
        except Exception as error:  # noqa: BLE001  # as above
            sent, self.trouble = False, str(error).splitlines()[0]
        if not sent:
            raise Problem(
                f"the store did not take everything of run {self.name}: {self.trouble}",
                f"What is missing is kept in {self._spool_path}; aelab resume {self.id[:8]} sends it.",
            )
