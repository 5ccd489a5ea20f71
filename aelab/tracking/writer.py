"""One run being written to MLflow: nothing in the training waits for it, nothing is sent twice."""

import itertools
import json
import os
import re
import shlex
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab import aliases
from aelab.errors import UserError, redacted
from aelab.tracking.info import RunInfo, local_path, run_folder
from aelab.tracking.owner import hold
from aelab.tracking.spool import Entry, Spool, open_to_append
from aelab.tracking.trouble import SILENCE_SECONDS, deliver, reason_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aelab.figures import Picture

FLUSH_SECONDS = 2.0  # between two sendings; up to 16 times that while the store is away
END_SECONDS = 20.0  # what a store that takes nothing gets at the end of a run
RETRY_SECONDS = 0.5  # between two attempts then
HURRY_SECONDS = 5.0  # what it gets of a process that was told to stop
SLOWEST = 250_000.0  # bytes a second at which a file may still arrive
MOST_METRICS = 1000  # that one log_batch takes
KINDS = {"metric": "figure", "tags": "tag", "picture": "picture", "file": "file", "end": "status"}
Status = Literal["FINISHED", "FAILED", "KILLED"]


def restoring(client: MlflowClient, run_id: str) -> str:
    """The command that brings a deleted run back."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(redacted(client.tracking_uri))} mlflow runs restore --run-id {run_id}"


class RunWriter:
    """One run being written. Nothing here waits for the store: a thread sends what gathers, every two seconds.

    Each entry is written to a spool on this disk first and sent once; a point or picture that the store has already is
    dropped. What the store does not take stays in the spool, for the next resume or `aelab sync`. With `training` the
    run's lock is held until it is closed; otherwise figures are added to a run that another process may be writing.
    `again` takes up what is in the spool. What the store refuses is set aside in `refused.jsonl`. `warn` hears of both.
    """

    def __init__(
        self,
        client: MlflowClient,
        info: RunInfo,
        training: bool = True,
        again: bool = False,
        spool: Path | None = None,
        ended: bool = False,
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.id, self.name, self.info, self.warn = info.id, info.name, info, warn
        self._client = client
        self.local = local_path(info)
        self.folder = run_folder(info)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from error
        self._held = hold(self.folder, info.name, info.tags.get("aelab.process", "")) if training else None
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._queue: list[Entry] = []
        self._stopping = self._given_up = self._sent = False
        self._moved = time.monotonic()  # when the store last took something
        self._allowed = END_SECONDS  # how long what is being sent may take
        self.trouble = ""  # why the last attempt to send failed
        self._deleted = ""  # what can be done about it, where the run was deleted in MLflow
        self._refused: set[str] = set()  # the names of what was set aside
        self._aside: set[str] = set()  # and all of it
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
            names = [key, *aliases.old_metrics(key)]
            self._logged[key] = {p.step for name in names for p in self._client.get_metric_history(self.id, name)}
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

    def stepwise_image(self, key: str, picture: "Picture", step: int) -> None:
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
            import PIL.Image

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
            raise UserError(f"cannot write {target}: {error.strerror or error}") from error
        if not self.local:
            self._put("file", path)
        return target

    def tags(self, tags: Mapping[str, str]) -> None:
        """Queues tags, without passwords; what is not text, as in the name of a file, becomes a question mark."""
        self._put("tags", {key: redacted(str(value)).encode(errors="replace").decode() for key, value in tags.items()})

    # the thread

    def _work(self) -> None:
        failed = 0
        while not self._stopping:
            self._wake.wait(FLUSH_SECONDS * 2 ** min(failed, 4))
            failed = 0 if self._send() else failed + 1
        told = False
        while not (self._given_up or self._sent):
            self._sent = self._send()
            if self._deleted:
                break
            if not (self._sent or told):  # what is in its way stays; the status is told all the same
                told = True
                for entry in self._queue:
                    if entry[0] == "end":
                        with suppress(Exception):
                            self._client.set_terminated(self.id, *entry[1:])
            if not self._sent:
                time.sleep(RETRY_SECONDS)
        if self._sent:
            self._spool.remove()

    def _send(self) -> bool:
        """Sends all that is queued; what fails stays queued. True if nothing is left."""
        while not self._given_up:
            with self._lock:
                metrics = list(itertools.takewhile(lambda entry: entry[0] == "metric", self._queue[:MOST_METRICS]))
                batch = metrics or self._queue[:1]
            try:
                if not batch:
                    self._heard("")
                    return True
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001  # whatever the store, the network or the disk raises: later, then
                self._heard(str(error) if isinstance(error, UserError) else reason_of(error))
                return False
            with self._lock:
                del self._queue[: len(batch)]
        return False

    def _deliver(self, batch: list[Entry]) -> None:
        """Sends a batch, or what the store takes of it; what it refuses is set aside."""
        if batch[0][0] == "tags":
            batch = [["tags", {key: value}] for key, value in batch[0][1].items()]
        deliver(batch, self._log, self._look, self._set_aside, self._refused)

    def _look(self) -> None:
        """Raises where the store is away, or has the run no more: then it has refused nothing of what was sent."""
        try:
            if self._client.get_run(self.id).info.lifecycle_stage != "deleted":
                return
            self._deleted = f"Restore it with: {restoring(self._client, self.id)}; then: aelab sync"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self._deleted = "MLflow cannot restore it."
        raise UserError(f"{self.name} has been deleted in MLflow")

    def _set_aside(self, entry: Entry, why: str) -> None:
        """Writes what the store refuses beside the run's files, and says so once for each name."""
        kind, name = entry[0], next(iter(entry[1])) if entry[0] == "tags" else str(entry[1])
        path, line = self.folder / "refused.jsonl", json.dumps({"entry": entry, "why": why})
        with suppress(OSError):
            if line not in self._aside:  # not a second time, where the store went away meanwhile
                self._aside.add(line)
                file = open_to_append(path)
                try:
                    os.write(file, f"{line}\n".encode())
                finally:
                    os.close(file)
            if kind == "picture" and isinstance(entry[3], str):
                kept = self._spool.pictures / Path(entry[3]).name
                kept.rename(self.folder / f"refused-{kept.name}")
        self._moved = time.monotonic()
        if name not in self._refused:
            self._refused.add(name)
            self.warn(f"the store refuses the {KINDS[kind]} '{name}' of {self.name}: {why}. It is kept in {path}.")

    def _heard(self, trouble: str) -> None:
        before, self.trouble = self.trouble, trouble
        if not trouble:
            self._deleted = ""
        if self._deleted and trouble != before:
            self.warn(f"{trouble}; what is logged is kept. {self._deleted}")
        elif trouble and not before:
            self.warn(f"the store does not answer: {trouble}. What is logged is kept and sent later.")
        elif before and not trouble and not self._stopping:
            self.warn("the store answers again and has what was kept for it.")

    def _log(self, batch: list[Entry]) -> None:
        match batch[0]:
            case ["metric", *_]:
                self._client.log_batch(self.id, metrics=[Metric(*entry[1:]) for entry in batch])
            case ["tags", _]:
                tags = [RunTag(key, value) for _, each in batch for key, value in each.items()]
                self._client.log_batch(self.id, tags=tags)
            case ["file", path]:
                if (source := self._inside(path)).exists():
                    self._allowed = END_SECONDS + source.stat().st_size / SLOWEST
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
                for path in [] if self.local else sorted(self.folder.glob("checkpoints/*/*")):
                    file = str(path.relative_to(self.folder))
                    deliver([["file", file]], self._log, self._look, self._set_aside)
                self._client.set_terminated(self.id, status, stamp)
        self._moved, self._allowed = time.monotonic(), END_SECONDS

    def _inside(self, path: str) -> Path:
        """A file of the run's folder."""
        target = (self.folder / path).resolve()
        if not target.is_relative_to(self.folder.resolve()):
            raise UserError(f"{path} is not in {self.folder}.")
        return target

    def close(self, status: Status | None = None, hurry: Callable[[], bool] = bool) -> None:
        """Sends what is left and ends the run with a status, or leaves its status as it is.

        A store that takes nothing for twenty seconds is given up, earlier once there is a `hurry`. Raises UserError if it
        does not take everything; what is missing then stays in the spool, the status too.
        """
        if status:
            self._put("end", status, int(time.time() * 1000))
        begun = time.monotonic()
        self._moved = begun
        self._stopping = True
        self._wake.set()
        left, said = HURRY_SECONDS, False
        while self._thread.is_alive() and left > 0 and time.monotonic() - self._moved < self._allowed:
            self._thread.join(0.1)
            left -= 0.1 * hurry()
            if not said and time.monotonic() - begun > SILENCE_SECONDS:
                said = True
                self.warn(
                    f"waiting for the store to take the last of {self.name}; after {self._allowed:.0f} s without an answer "
                    "it is kept for aelab sync."
                )
        self._given_up = True
        self._release()
        if self._deleted:
            raise UserError(
                f"{self.name} has been deleted in MLflow.",
                f"Its files, and what it has logged since, are in {self.folder}",
                self._deleted,
            )
        if not self._sent:
            why = self.trouble or "it did not answer in time"
            raise UserError(
                f"the store did not take everything of run {self.name}: {why}.",
                f"What is missing is kept in {self._spool.path}" + (f"; {t}" if (t := self._spool.trouble) else ""),
                "Send it with: aelab sync",
            )

    def _release(self) -> None:
        if self._held:
            self._held.release()
            self._held = None
