"""Writes one run to MLflow. Training never waits for it, and nothing is sent twice."""

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from mlflow.tracking import MlflowClient

from aelab import aliases
from aelab.errors import UserError, redacted
from aelab.tracking import models
from aelab.tracking.info import RunInfo, local_path, run_folder
from aelab.tracking.owner import hold
from aelab.tracking.sender import Sender, stored_pictures
from aelab.tracking.spool import Entry, Spool
from aelab.tracking.system import SystemMonitor

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from aelab.figures import Picture

Status = Literal["FINISHED", "FAILED", "KILLED"]


class RunWriter:
    """Writes one run. No method waits for the store, except `close`: a `Sender` sends the queue every two seconds.

    Each entry is first written to a spool on this disk, and is sent once. A point or picture that the store already has is
    dropped. What the store does not take stays in the spool, for the next resume or `aelab sync`. With `training` the run is
    locked until it is closed; without it, metrics are added to a run that another process may be writing. `reopened` reads
    back the spool of the run's last process. `warn` is called for outages and for entries that the store refuses. `typed` is
    the option that names the store in a command. `system_metrics` are logged until the run is closed.
    """

    def __init__(
        self,
        client: MlflowClient,
        info: RunInfo,
        training: bool = True,
        reopened: bool = False,
        spool: Path | None = None,
        ended: bool = False,
        warn: Callable[[str], None] = lambda text: None,
        typed: str = "",
        system_metrics: bool = False,
    ) -> None:
        self.id, self.name, self.info, self.warn = info.id, info.name, info, warn
        self.resume_command = f"aelab resume {info.id[:8]}{typed}"
        self._client = client
        self.local = local_path(info)
        self.folder = run_folder(info)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from error
        self._held = hold(self.folder, info.name, info.tags.get("aelab.process", "")) if training else None
        self._spool = Spool(spool or self.folder / ("unsent.jsonl" if training else f"unsent-{os.getpid()}.jsonl"))
        self._sender = Sender(client, info, self.folder, self._spool, upload=self.local is None, warn=warn)
        self._writing = threading.Lock()  # system metrics come from a thread of their own
        self._logged: dict[str, set[int]] = {}  # the steps of each metric
        self._drawn: set[tuple[str, int]] = set()  # key and step of each picture
        try:
            if reopened:
                self._read_back(ended)
        except BaseException:
            self._release()
            raise
        self._sender.start()
        self._monitor: SystemMonitor | None = None
        if training and system_metrics:
            steps = [max(each) for key, each in self._logged.items() if key.startswith("system/") and each]
            self._monitor = SystemMonitor(self.metrics, max(steps, default=-1) + 1, warn)

    def _read_back(self, ended: bool) -> None:
        """Reads what the run has logged, and queues what its last process could not send.

        The status is queued only if the run has `ended` and nothing was logged after it.
        """
        for key in self.info.metrics:
            names = [key, *aliases.old_metrics(key, self.info.recipe)]
            self._logged[key] = {p.step for name in names for p in self._client.get_metric_history(self.id, name)}
        self._drawn = stored_pictures(self._client, self.id)
        end: list[Entry] = []
        for entry in self._spool.entries():
            match entry:
                case ["metric", str(key), float() | int(), int(), int(step), *_]:
                    if not self._held or self._is_new(key, step):
                        self._sender.put(entry)
                case ["picture", str(key), int(step), str()]:
                    if (key, step) not in self._drawn:
                        self._drawn.add((key, step))
                        self._sender.put(entry)
                case ["tags", dict()] | ["file", str()] | ["model", str()]:
                    self._sender.put(entry)
                case ["end", str(), int()] if ended:
                    end = [entry]
                    continue
            end = []
        for entry in end:
            self._sender.put(entry)

    def _is_new(self, key: str, step: int) -> bool:
        steps = self._logged.setdefault(key, set())
        if step in steps:
            return False
        steps.add(step)
        return True

    def _put(self, *entry: Any) -> None:
        with self._writing:
            self._spool.write(list(entry))
            self._sender.put(list(entry))

    def metrics(self, values: Mapping[str, float], step: int, of: Sequence[str] = ()) -> None:
        """Queues one point of each metric. `of` are the LoggedModel, the data set and its digest that they belong to, if any."""
        stamp = int(time.time() * 1000)
        for key, value in values.items():
            if self._is_new(key, step):
                self._put("metric", key, value, stamp, step, *of)

    def stepwise_image(self, key: str, picture: "Picture", step: int) -> None:
        """Queues a picture (H, W, 3) that MLflow shows with a step slider. The slider needs a picture at step 0."""
        if (key, step) not in self._drawn:
            self._drawn.add((key, step))
            kept = self._spool.keep(key, step, picture)
            if kept:
                self._put("picture", key, step, kept)
            else:  # the disk is full: in memory only
                self._sender.put(["picture", key, step, picture])

    def picture(self, path: str, picture: "Picture | Figure") -> Path:
        """Writes a picture, an array (H, W, 3) or a matplotlib figure, as an artifact. Returns its file on this machine."""
        if isinstance(picture, np.ndarray):
            import PIL.Image

            from aelab.figures import enlarged

            return self.file(path, lambda target: PIL.Image.fromarray(enlarged(picture)).save(target))
        return self.file(path, picture.savefig)

    def text(self, path: str, text: str) -> Path:
        """Writes a text file as an artifact. Returns its path on this machine."""
        return self.file(path, lambda target: target.write_text(text, encoding="utf-8"))

    def json(self, path: str, value: Any) -> Path:
        return self.text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def file(self, path: str, write: Callable[[Path], Any]) -> Path:
        """Writes an artifact atomically into the run's folder; if artifacts are on a server, it is queued to be sent there."""
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

    def model(
        self,
        step: int,
        write_data: Callable[[Path], Any],
        loader: str,
        signature: models.Signature,
        example: Any,
        packages: Sequence[str],
    ) -> None:
        """Writes the kept weights, those after `step` steps, as a model, and queues it to become a LoggedModel.

        `write_data` writes into a folder what the module `loader` loads from it. The rest is as in `models.write`.
        """
        folder = self.folder / f"model-{step:08d}"
        try:
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "data").mkdir(parents=True)
            write_data(folder / "data")
            models.write(folder, self.name, step, loader, signature, example, packages)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(f"cannot write {folder}: {error.strerror or error}") from error
        self._put("model", folder.name)

    def tags(self, tags: Mapping[str, str]) -> None:
        """Queues tags, without passwords. Bytes that are not text, as in the name of a file, become question marks."""
        self._put("tags", {key: redacted(str(value)).encode(errors="replace").decode() for key, value in tags.items()})

    def close(self, status: Status | None = None, hurry: Callable[[], bool] = bool) -> None:
        """Sends the rest, and ends the run with a status or leaves its status as it is.

        Gives up when the store takes nothing for twenty seconds, or sooner once `hurry` returns true. Raises UserError if the
        store does not take everything; what is missing, including the status, then stays in the spool.
        """
        if self._monitor:
            self._monitor.stop()
        if status:
            self._put("end", status, int(time.time() * 1000))
        self._sender.finish(hurry)
        self._release()
        if self._sender.deleted:
            raise UserError(
                f"{self.name} has been deleted in MLflow.",
                f"Its files, and what it has logged since, are in {self.folder}",
                self._sender.deleted,
            )
        if not self._sender.sent:
            why = self._sender.trouble or "it did not answer in time"
            raise UserError(
                f"the store did not take everything of run {self.name}: {why}.",
                f"What is missing is kept in {self._spool.path}" + (f"; {t}" if (t := self._spool.trouble) else ""),
                "Send it with: aelab sync",
            )

    def _release(self) -> None:
        if self._held:
            self._held.release()
            self._held = None
