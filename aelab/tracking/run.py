"""One run being written to MLflow: nothing in the training waits for it, nothing is sent twice."""

import itertools
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import PIL.Image
from mlflow.entities import Metric, RunTag
from mlflow.tracking import MlflowClient

from aelab.pictures import Picture
from aelab.problem import Problem, redacted
from aelab.tracking.info import RunInfo, cache_folder, local_path
from aelab.tracking.owner import hold
from aelab.tracking.spool import Entry, Spool

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FLUSH_SECONDS = 2.0
HURRY_SECONDS = 5.0  # what a process that was told to stop gives the store
MOST_METRICS = 1000  # that one log_batch takes
Status = Literal["FINISHED", "FAILED", "KILLED"]


class Run:
    """One run being written. Nothing here waits for the store: a thread sends what gathers, every two seconds.

    Each entry is written to a spool on this disk first and sent once; a point or picture that the store has already is
    dropped. What the store does not take stays in the spool, for the next resume or `aelab sync`. With `training` the
    run's lock is held until it is closed; otherwise figures are added to a run that another process may be writing.
    `again` takes up what is in the spool.
    """

    def __init__(
        self,
        client: MlflowClient,
        info: RunInfo,
        training: bool = True,
        again: bool = False,
        spool: Path | None = None,
        ended: bool = False,
    ) -> None:
        self.id, self.name, self.info = info.id, info.name, info
        self._client = client
        self.local = local_path(info.artifacts)
        self.folder = self.local or cache_folder(info.id)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Problem(f"cannot write to {self.folder}: {error.strerror}") from error
        self._held = hold(self.folder, info.name, info.tags.get("aelab.process", "")) if training else None
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._queue: list[Entry] = []
        self._stopping = self._sent = False
        self.trouble = ""  # why the last attempt to send failed
        self.warn: Callable[[str], None] = lambda text: None  # hears of an outage and of its end
        self._spool = Spool(spool or self.folder / ("unsent.jsonl" if training else f"unsent-{os.getpid()}.jsonl"))
        self._logged: dict[str, set[int]] = {}
        self._drawn: set[tuple[str, int]] = set()
        try:
            if again:
                self._recall(ended)
        except BaseException:
            self._release()
            raise
        self._thread = threading.Thread(target=self._work, daemon=True, name="aelab-tracking")
        self._thread.start()

    def _recall(self, ended: bool) -> None:
        """Reads back what the run has logged, and queues what its last process could not send.

        Its status only where it has `ended`, and nothing was logged after that.
        """
        for key in self.info.metrics:
            self._logged[key] = {point.step for point in self._client.get_metric_history(self.id, key)}
        self._drawn = self._pictures()
        end: list[Entry] = []
        for entry in self._spool.entries():
            match entry:
                case ["metric", str(key), float() | int(), int(), int(step)]:
                    if not self._held or self._is_new(key, step):
                        self._queue.append(entry)
                case ["picture", str(key), int(step), str()]:
                    if (key, step) not in self._drawn:
                        self._drawn.add((key, step))
                        self._queue.append(entry)
                case ["tags", dict()] | ["file", str()]:
                    self._queue.append(entry)
                case ["end", str(), int()] if ended:
                    end = [entry]
                    continue
            end = []
        self._queue += end

    def _pictures(self) -> set[tuple[str, int]]:
        """The stepwise pictures that the store has, by key and step."""
        found = set()
        for entry in self._client.list_artifacts(self.id, "images"):
            if match := re.match(r"(.+)[%+]step[%+](\d+)[%+].*\.webp$", Path(entry.path).name):  # it is written last
                found.add((match[1].replace("~", "/"), int(match[2])))
        return found

    def _is_new(self, key: str, step: int) -> bool:
        steps = self._logged.setdefault(key, set())
        if step in steps:
            return False
        steps.add(step)
        return True

    def _put(self, *entry: Any) -> None:
        self._spool.write(list(entry))
        with self._lock:
            self._queue.append(list(entry))

    def metrics(self, values: Mapping[str, float], step: int) -> None:
        """Queues one point a metric."""
        stamp = int(time.time() * 1000)
        for key, value in values.items():
            if self._is_new(key, step):
                self._put("metric", key, value, stamp, step)

    def stepwise_image(self, key: str, picture: Picture, step: int) -> None:
        """Queues a picture that the UI shows under a slider; the slider starts at step 0."""
        if (key, step) not in self._drawn:
            self._drawn.add((key, step))
            kept = self._spool.keep(key, step, picture)
            if kept:
                self._put("picture", key, step, kept)
            else:  # a full disk: in memory only
                with self._lock:
                    self._queue.append(["picture", key, step, picture])

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
        """A file in the run's folder, whole or not there; where a server keeps the artifacts, it is sent there too."""
        target = self.folder / path
        unfinished = target.with_name(f".{os.getpid()}-{target.name}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write(unfinished)
            unfinished.replace(target)
        except OSError as error:
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise Problem(f"cannot write {target}: {error.strerror or error}") from error
        if not self.local:
            self._put("file", path)
        return target

    def tags(self, tags: Mapping[str, str]) -> None:
        self._put("tags", {key: redacted(str(value)) for key, value in tags.items()})

    # the thread

    def _work(self) -> None:
        while not self._stopping:
            self._wake.wait(FLUSH_SECONDS)
            self._send()
        self._sent = self._send() or self._send()
        if self._sent:
            self._spool.remove()
        for entry in self._queue:  # what is in its way stays; the status is told all the same
            if entry[0] == "end":
                with suppress(Exception):
                    self._client.set_terminated(self.id, *entry[1:])

    def _send(self) -> bool:
        """Sends all that is queued; what fails stays queued. True if nothing is left."""
        while True:
            with self._lock:
                metrics = list(itertools.takewhile(lambda entry: entry[0] == "metric", self._queue[:MOST_METRICS]))
                batch = metrics or self._queue[:1]
            try:
                if not batch:
                    self._heard("")
                    return True
                self._log(batch)
            except Exception as error:  # noqa: BLE001  # whatever the store, the network or the disk raises: later, then
                self._heard(redacted((str(error).strip() or type(error).__name__).splitlines()[0]))
                return False
            with self._lock:
                del self._queue[: len(batch)]

    def _heard(self, trouble: str) -> None:
        before, self.trouble = self.trouble, trouble
        if trouble and not before:
            self.warn(
                f"the store does not answer: {trouble[:200]} Training goes on; what it logs is kept and sent later."
            )
        elif before and not trouble and not self._stopping:
            self.warn("the store answers again and has what was kept for it.")

    def _log(self, batch: list[Entry]) -> None:
        match batch[0]:
            case ["metric", *_]:
                self._client.log_batch(self.id, metrics=[Metric(*entry[1:]) for entry in batch])
            case ["tags", tags]:
                self._client.log_batch(self.id, tags=[RunTag(key, value) for key, value in tags.items()])
            case ["file", path]:
                if (source := self._inside(path)).exists():
                    self._client.log_artifact(self.id, str(source), path.rpartition("/")[0] or None)
            case ["picture", key, step, kept]:
                if self.trouble and (key, step) in self._pictures():
                    return  # it arrived, the answer did not
                picture = self._spool.picture(kept) if isinstance(kept, str) else kept
                if picture is not None:
                    self._client.log_image(self.id, picture, key=key, step=step, synchronous=True)
                if isinstance(kept, str):
                    self._spool.forget(kept)
            case ["end", status, stamp]:
                if not self.local and (checkpoints := self.folder / "checkpoints").is_dir():
                    self._client.log_artifacts(self.id, str(checkpoints), "checkpoints")
                self._client.set_terminated(self.id, status, stamp)

    def _inside(self, path: str) -> Path:
        """A file of the run's folder."""
        target = (self.folder / path).resolve()
        if not target.is_relative_to(self.folder.resolve()):
            raise Problem(f"{path} is not in {self.folder}.")
        return target

    def close(self, status: Status | None = None, hurry: Callable[[], bool] = bool) -> None:
        """Sends what is left and ends the run with a status, or leaves its status as it is.

        Once there is a `hurry` the store gets a few seconds more. Raises Problem if it does not take everything; what
        is missing then stays in the spool, the status too.
        """
        if status:
            self._put("end", status, int(time.time() * 1000))
        self._stopping = True
        self._wake.set()
        left = HURRY_SECONDS
        while self._thread.is_alive() and left > 0:
            self._thread.join(0.1)
            left -= 0.1 * hurry()
        self._release()
        if not self._sent:
            why = self.trouble or "it did not answer in time"
            raise Problem(
                f"the store did not take everything of run {self.name}: {why}",
                f"What is missing is kept in {self._spool.path}" + (f"; {t}" if (t := self._spool.trouble) else ""),
                "Send it with: aelab sync",
            )

    def _release(self) -> None:
        if self._held:
            self._held.release()
            self._held = None
