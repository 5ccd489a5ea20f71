"""What the store knows of a run, and where its files are on this machine."""

import math
import re
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from aelab.problem import Problem

LATEST = 253_370_764_800_000  # the year 9999, in milliseconds since 1970


@dataclass(frozen=True)
class RunInfo:
    """What the store knows of a run."""

    id: str
    name: str
    status: str
    experiment_id: str
    started: float | None  # seconds since 1970; None where the store has no such time
    ended: float | None
    params: Mapping[str, str]  # with the epochs that it has now
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: str  # URI

    @property
    def recipe(self) -> str:
        return self.tags.get("aelab.recipe", "")

    @property
    def seconds(self) -> float | None:
        """What the training took, or from start to end where it did not say; None as long as it runs."""
        with suppress(KeyError, ValueError):  # anyone may have written it
            if math.isfinite(seconds := float(self.tags["aelab.seconds"])):
                return seconds
        return round(self.ended - self.started, 1) if self.ended and self.started is not None else None

    @property
    def parent(self) -> str | None:
        return self.tags.get("mlflow.parentRunId")


def run_info(run: Any) -> RunInfo:
    info, data = run.info, run.data
    longer = re.fullmatch(r"from \S+ to (\d+) epochs", data.tags.get("aelab.lengthened", ""))
    params = {**data.params, "epochs": longer[1]} if longer else data.params  # MLflow cannot change a parameter
    return RunInfo(
        info.run_id, info.run_name or "", info.status, info.experiment_id, _time(info.start_time), _time(info.end_time),
        params, data.tags, data.metrics, info.artifact_uri,
    )  # fmt: skip


def _time(milliseconds: object) -> float | None:
    """A time of the store in seconds since 1970; None where there is none, or none before the year 9999."""
    whole = isinstance(milliseconds, int) and 0 <= milliseconds < LATEST
    return milliseconds / 1000 if whole else None  # type: ignore[operator]


def local_path(uri: str) -> Path | None:
    """The folder that an artifact URI means on this machine, or None where a server keeps the artifacts."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme not in ("file", ""):
        return None
    path = Path(urllib.request.url2pathname(parts.path)) if parts.scheme else Path(uri)
    if path.name != "artifacts" or not re.fullmatch("[0-9a-f]{32}", path.parent.name) or ".." in path.parts:
        raise Problem(f"the store says that a run keeps its files in {path}; that is no folder of MLflow's.")
    return path


def cache_folder(run_id: str) -> Path:
    """Where a run that is tracked by a server keeps its files on this machine."""
    if not re.fullmatch("[0-9a-f]{32}", run_id):
        raise Problem(f"the store says that a run has the id {run_id[:60]}; that is no id of MLflow's.")
    return Path(platformdirs.user_cache_dir("aelab")) / "runs" / run_id
