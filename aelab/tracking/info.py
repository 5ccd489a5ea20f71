"""What the store knows of a run, and where its files are on this machine."""

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


@dataclass(frozen=True)
class RunInfo:
    """What the store knows of a run."""

    id: str
    name: str
    status: str
    experiment_id: str
    started: float  # seconds since 1970
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
        if "aelab.seconds" in self.tags:
            with suppress(ValueError):  # anyone may have written it
                return float(self.tags["aelab.seconds"])
        return round(self.ended - self.started, 1) if self.ended else None

    @property
    def parent(self) -> str | None:
        return self.tags.get("mlflow.parentRunId")


def run_info(run: Any) -> RunInfo:
    info, data = run.info, run.data
    longer = re.fullmatch(r"from \S+ to (\d+) epochs", data.tags.get("aelab.lengthened", ""))
    params = {**data.params, "epochs": longer[1]} if longer else data.params  # MLflow cannot change a parameter
    ended = info.end_time / 1000 if info.end_time else None
    return RunInfo(
        info.run_id, info.run_name or "", info.status, info.experiment_id, info.start_time / 1000, ended,
        params, data.tags, data.metrics, info.artifact_uri,
    )  # fmt: skip


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
