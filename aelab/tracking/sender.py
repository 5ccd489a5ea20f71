"""The thread that sends what a run has logged: in batches, each entry once, through outages of the store."""

import itertools
import json
import logging
import os
import re
import shlex
import shutil
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from aelab.errors import UserError, redacted
from aelab.tracking import models
from aelab.tracking.info import RunInfo
from aelab.tracking.spool import Entry, Spool, open_to_append
from aelab.tracking.trouble import SILENCE_SECONDS, deliver, reason_of

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0  # between two batches; up to 16 times that during an outage
END_SECONDS = 20.0  # at the end of a run: how long to wait for a store that takes nothing
RETRY_SECONDS = 0.5  # between two attempts at the end of a run
HURRY_SECONDS = 5.0  # to wait at the end, once the process was told to stop
UPLOAD_SHARE = 0.1  # of the time of a training: how much of it the uploads of its checkpoints take at most
SLOWEST_UPLOAD = 250_000.0  # bytes per second: a large file gets as much time as this needs
METRICS_PER_REQUEST = 1000  # the limit of MLflow's log_batch
CHECKPOINT = re.compile(r"(best|last)-\d+")  # the name of its folder
KIND_NAMES = {
    "metric": "metric",
    "tags": "tag",
    "picture": "picture",
    "file": "file",
    "model": "model",
    "end": "status",
}  # of entries


class Sender:
    """Sends a run's entries to the store, in a thread of its own that never raises.

    What fails stays in the queue and is sent again. What the store refuses is written to `refused.jsonl` in the run's folder.
    Entries are in the `spool` too, which is deleted once the store has everything. `upload` says whether the files go to a
    server; its newest checkpoint is then sent during the training too, so that another machine can resume the run. `warn` is
    called when an outage begins or ends, and when the store refuses something.
    """

    def __init__(
        self,
        client: MlflowClient,
        info: RunInfo,
        folder: Path,
        spool: Spool,
        upload: bool,
        warn: Callable[[str], None],
    ) -> None:
        self.trouble = ""  # why the last attempt to send failed
        self.deleted = ""  # if the run was deleted in MLflow: what the user can do
        self.sent = False  # whether everything was sent, after the end
        self._client, self._id, self._name, self._folder, self._info = client, info.id, info.name, folder, info
        self._artifacts = info.artifacts
        self._spool, self._upload, self._warn = spool, upload, warn
        self._queue: list[Entry] = []
        self._lock, self._wake = threading.Lock(), threading.Event()
        self._stopping = self._given_up = False
        self._last_success = time.monotonic()
        self._patience = END_SECONDS  # how long the present request may take
        self._refused: set[str] = set()  # names of refused entries
        self._refused_lines: set[str] = set()  # the refused entries
        self._uploaded: set[str] = set()  # names of checkpoints
        self._upload_again = 0.0  # when the next checkpoint may be sent
        self._thread = threading.Thread(target=self._work, daemon=True, name="aelab-tracking")

    def start(self) -> None:
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queues an entry; it is sent within seconds."""
        with self._lock:
            self._queue.append(entry)

    def finish(self, hurry: Callable[[], bool]) -> None:
        """Sends the rest. Gives up when the store takes nothing for END_SECONDS, or sooner once `hurry` returns true."""
        begun = time.monotonic()
        self._last_success = begun
        self._stopping = True
        self._wake.set()
        left, warned = HURRY_SECONDS, False
        while self._thread.is_alive() and left > 0 and time.monotonic() - self._last_success < self._patience:
            self._thread.join(0.1)
            left -= 0.1 * hurry()
            if not warned and time.monotonic() - begun > SILENCE_SECONDS:
                warned = True
                self._warn(
                    f"waiting for the store to take the rest of {self._name}; after {self._patience:.0f} s without an answer "
                    "it is kept for aelab sync."
                )
        self._given_up = True

    def _work(self) -> None:
        failed = 0
        while not self._stopping:
            self._wake.wait(FLUSH_SECONDS * 2 ** min(failed, 4))
            saved = self._saved() if self._upload and time.monotonic() > self._upload_again else []
            failed = 0 if self._send() else failed + 1
            if (
                not failed
            ):  # whatever was logged before these checkpoints is in the store now: who resumes them lacks nothing
                self._upload_checkpoints(saved)
        status_sent = False
        while not (self._given_up or self.sent):
            self.sent = self._send()
            if self.deleted:
                break
            if not (self.sent or status_sent):  # an entry that cannot be sent does not hold back the status
                status_sent = True
                for entry in self._queue:
                    if entry[0] == "end":
                        with suppress(Exception):
                            self._client.set_terminated(self._id, *entry[1:])
            if not self.sent:
                time.sleep(RETRY_SECONDS)
        if self.sent:
            self._spool.remove()

    def _send(self) -> bool:
        """Sends the queue; what fails stays in it. Returns whether the queue is empty."""
        while not self._given_up:
            with self._lock:
                metrics = list(
                    itertools.takewhile(lambda entry: entry[0] == "metric", self._queue[:METRICS_PER_REQUEST])
                )
                batch = metrics or self._queue[:1]
            try:
                if not batch:
                    self._report("")
                    return True
                self._deliver(batch)
            except Exception as error:  # noqa: BLE001  # of the store, the network or the disk: it is sent again later
                self._report(str(error) if isinstance(error, UserError) else reason_of(error))
                return False
            with self._lock:
                del self._queue[: len(batch)]
        return False

    def _deliver(self, batch: list[Entry]) -> None:
        """Sends a batch. Entries that the store refuses are set aside, and the others are sent."""
        if batch[0][0] == "tags":
            batch = [["tags", {key: value}] for key, value in batch[0][1].items()]
        deliver(batch, self._log, self._check_run, self._set_aside, self._refused)

    def _check_run(self) -> None:
        """Raises if the store does not answer or no longer has the run: then it has not refused the entry itself."""
        try:
            if self._client.get_run(self._id).info.lifecycle_stage != "deleted":
                return
            self.deleted = f"Restore it with: {restore_command(self._client, self._id)}; then: aelab sync"
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            self.deleted = "MLflow cannot restore it."
        raise UserError(f"{self._name} has been deleted in MLflow")

    def _set_aside(self, entry: Entry, why: str) -> None:
        """Writes a refused entry to the run's folder, and warns once for each name."""
        kind, name = entry[0], next(iter(entry[1])) if entry[0] == "tags" else str(entry[1])
        path, line = self._folder / "refused.jsonl", json.dumps({"entry": entry, "why": why})
        with suppress(OSError):
            if line not in self._refused_lines:  # an entry may be refused twice if there was an outage in between
                self._refused_lines.add(line)
                file = open_to_append(path)
                try:
                    os.write(file, f"{line}\n".encode())
                finally:
                    os.close(file)
            if kind == "picture" and isinstance(entry[3], str):
                kept = self._spool.pictures / Path(entry[3]).name
                kept.rename(self._folder / f"refused-{kept.name}")
        self._last_success = time.monotonic()
        if name not in self._refused:
            self._refused.add(name)
            self._warn(
                f"the store refuses the {KIND_NAMES[kind]} '{name}' of {self._name}: {why}. It is kept in {path}."
            )

    def _report(self, trouble: str) -> None:
        """Warns when an outage begins and when it ends. `trouble` says what is wrong, and is empty if nothing is."""
        before, self.trouble = self.trouble, trouble
        if not trouble:
            self.deleted = ""
        if self.deleted and trouble != before:
            self._warn(f"{trouble}; what is logged is kept. {self.deleted}")
        elif trouble and not before:
            self._warn(f"the store does not answer: {trouble}. What is logged is kept and sent later.")
        elif before and not trouble and not self._stopping:
            self._warn("the store answers again and has what was kept for it.")

    def _log(self, batch: list[Entry]) -> None:
        """Logs entries of one kind with MLflow. Raises any error of MLflow, the network or the disk."""
        match batch[0]:
            case ["metric", *_]:
                self._client.log_batch(self._id, metrics=[Metric(*entry[1:]) for entry in batch])
            case ["tags", _]:
                tags = [RunTag(key, value) for _, each in batch for key, value in each.items()]
                self._client.log_batch(self._id, tags=tags)
            case ["file", path]:
                if (source := self._inside(path)).exists():
                    self._patience = END_SECONDS + source.stat().st_size / SLOWEST_UPLOAD
                    self._client.log_artifact(self._id, str(source), path.rpartition("/")[0] or None)
            case ["model", path]:
                if (source := self._inside(path)).is_dir():
                    size = sum(file.stat().st_size for file in source.rglob("*"))
                    self._patience = END_SECONDS + size / SLOWEST_UPLOAD
                    models.send(self._client, self._info, source)
                    shutil.rmtree(source, ignore_errors=True)  # the store has its own
            case ["picture", key, step, kept]:
                if self.trouble and (key, step) in stored_pictures(self._client, self._id):
                    return  # it arrived, though the answer did not
                self._log_picture(key, step, kept)
            case ["end", status, stamp]:
                names = self._checkpoints() if self._upload else []
                for checkpoint in names:
                    for file in self._files(checkpoint) if checkpoint not in self._uploaded else []:
                        deliver([["file", file]], self._log, self._check_run, self._set_aside)
                    self._uploaded.add(checkpoint)
                if names and not any(name.startswith("checkpoints/") for name in self._refused):
                    with suppress(Exception):  # then more of them stay than are needed
                        self._remove_other_checkpoints(names)
                self._client.set_terminated(self._id, status, stamp)
        self._last_success, self._patience = time.monotonic(), END_SECONDS

    def _checkpoints(self) -> list[str]:
        """The names of the checkpoints in the run's folder. The best weights come first, as a last checkpoint may need them."""
        return sorted(path.name for path in self._folder.glob("checkpoints/*-*") if CHECKPOINT.fullmatch(path.name))

    def _saved(self) -> list[str]:
        """Those of them that are not uploaded, but of the last ones only the newest."""
        names = self._checkpoints()
        newest = [name for name in names if name.startswith("best")] + [
            name for name in names if name.startswith("last")
        ][-1:]
        return [name for name in newest if name not in self._uploaded]

    def _files(self, checkpoint: str) -> list[str]:
        """The files of a checkpoint; the manifest comes last, so that a checkpoint with a manifest is complete."""
        names = sorted(path.name for path in (self._folder / "checkpoints" / checkpoint).glob("*"))
        return [f"checkpoints/{checkpoint}/{name}" for name in sorted(names, key=lambda name: name == "manifest.json")]

    def _upload_checkpoints(self, names: list[str]) -> None:
        """Sends checkpoints, and removes older ones from the server. What fails is sent with the next one, or at the end."""
        begun = time.monotonic()
        try:
            for name in names:
                files = self._files(name)
                for file in files:
                    if self._stopping:
                        return
                    self._log([["file", file]])
                if (
                    not files or self._files(name) != files
                ):  # the trainer has removed it meanwhile: there is a newer one
                    return
                self._uploaded.add(name)
            if names:  # of each kind two stay: somebody may be fetching the older one
                there = sorted(self._on_server())
                newest = [name for kind in ("last", "best") for name in [n for n in there if n.startswith(kind)][-2:]]
                self._remove_other_checkpoints({*newest, *names})
        except Exception as error:  # noqa: BLE001  # of the store, the network or the disk
            log.debug(f"checkpoints of {self._name} are not uploaded: {reason_of(error)}")
        finally:
            self._upload_again = time.monotonic() + (time.monotonic() - begun) / UPLOAD_SHARE

    def _remove_other_checkpoints(self, kept: Collection[str]) -> None:
        """Removes from the server all checkpoints but these. Where it does not allow that, they stay."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository = get_artifact_repository(self._artifacts, tracking_uri=self._client.tracking_uri)
        for name in self._on_server() - set(kept):
            if CHECKPOINT.fullmatch(name):
                repository.delete_artifacts(f"checkpoints/{name}")  # type: ignore[no-untyped-call]

    def _on_server(self) -> set[str]:
        return {Path(entry.path).name for entry in self._client.list_artifacts(self._id, "checkpoints")}

    def _log_picture(self, key: str, step: int, kept: Any) -> None:
        """Logs a picture, given as an array or as the name of its file in the spool, and deletes that file."""
        picture = self._spool.picture(kept) if isinstance(kept, str) else kept
        if picture is not None:
            self._client.log_image(self._id, picture, key=key, step=step, synchronous=True)
        if isinstance(kept, str):
            self._spool.forget(kept)

    def _inside(self, path: str) -> Path:
        """A file in the run's folder. Raises UserError for a path that leads out of it."""
        target = (self._folder / path).resolve()
        if not target.is_relative_to(self._folder.resolve()):
            raise UserError(f"{path} is not in {self._folder}.")
        return target


def stored_pictures(client: MlflowClient, run_id: str) -> set[tuple[str, int]]:
    """The key and the step of each picture of a run that the store has."""
    found = set()
    for entry in client.list_artifacts(run_id, "images"):
        if match := re.match(r"(.+)[%+]step[%+](\d+)[%+].*\.webp$", Path(entry.path).name):  # it is written last
            found.add((match[1].replace("~", "/"), int(match[2])))
    return found


def restore_command(client: MlflowClient, run_id: str) -> str:
    """The command that restores a deleted run."""
    return f"MLFLOW_TRACKING_URI={shlex.quote(redacted(client.tracking_uri))} mlflow runs restore --run-id {run_id}"
