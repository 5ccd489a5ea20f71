"""What the store knows about a run, and where the run's files are on this machine."""

import math
import os
import re
import stat
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from aelab import aliases
from aelab.errors import UserError
from aelab.tracking.owner import PROCESS_DIED

LATEST_TIME = 253_370_764_800_000  # the year 9999, in milliseconds since 1970


@dataclass(frozen=True)
class RunInfo:
    """What the store knows about a run."""

    id: str
    name: str
    status: str
    experiment_id: str
    started: float | None  # seconds since 1970; None if the store has no valid time
    ended: float | None
    params: Mapping[str, str]  # `epochs` is the present number, even if the run was lengthened
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    artifacts: str  # URI

    @property
    def recipe(self) -> str:
        return self.tags.get("aelab.recipe", "")

    @property
    def seconds(self) -> float | None:
        """The seconds of training, or those from start to end if the run has no such tag; None while it is running."""
        with suppress(KeyError, ValueError):  # the tag may have any text
            if math.isfinite(seconds := float(self.tags["aelab.seconds"])):
                return seconds
        return round(self.ended - self.started, 1) if self.ended and self.started is not None else None

    @property
    def kept(self) -> str:
        """The split of the validation metrics of the kept weights: best, or last where nothing selects; empty without any."""
        return next((name for name in ("best", "last") if any(key.startswith(f"{name}/") for key in self.metrics)), "")

    @property
    def validation(self) -> dict[str, float]:
        """The validation metrics of the kept weights, by name without split."""
        split = f"{self.kept}/"
        return {key.removeprefix(split): value for key, value in self.metrics.items() if key.startswith(split)}

    @property
    def dataset(self) -> tuple[str, str]:
        """The name and the digest by which MLflow knows the data; two empty strings if the run has none."""
        return self.tags.get("aelab.data", ""), self.tags.get("aelab.data_fingerprint", "")[:16]

    @property
    def interrupted(self) -> bool:
        """Whether the run was stopped from outside: by a signal, or by the death of its process."""
        return self.status == "KILLED" or self.tags.get("aelab.reason", "").startswith(PROCESS_DIED)

    @property
    def parent(self) -> str | None:
        return self.tags.get("mlflow.parentRunId")


def run_info(run: Any) -> RunInfo:
    """The content of MLflow's run entity, under the present names of metrics and tags."""
    info, data = run.info, run.data
    longer = re.fullmatch(r"from \S+ to (\d+) epochs", data.tags.get("aelab.lengthened", ""))
    params = {**data.params, "epochs": longer[1]} if longer else data.params  # MLflow cannot change a parameter
    params = {key: _as_typed(value) for key, value in params.items()}
    recipe = data.tags.get("aelab.recipe", "")
    metrics = aliases.renamed(data.metrics, {key: aliases.metric(key, recipe) for key in data.metrics})
    tags = aliases.renamed(data.tags, aliases.TAGS)
    if "aelab.reason" in tags:
        tags["aelab.reason"] = aliases.reason(tags["aelab.reason"])
    return RunInfo(
        info.run_id,
        info.run_name or "",
        info.status,
        info.experiment_id,
        _time(info.start_time),
        _time(info.end_time),
        params,
        tags,
        metrics,
        info.artifact_uri,
    )


def _as_typed(value: str) -> str:
    """The text of a parameter, "(400, 300)" as 400,300: a tuple as it is typed."""
    return re.sub(r"[ ']", "", value[1:-1]).rstrip(",") if re.fullmatch(r"\(.*,.*\)", value) else value


def _time(milliseconds: object) -> float | None:
    """A time in the store as seconds since 1970; None if it is missing, negative or after the year 9999."""
    whole = isinstance(milliseconds, int) and 0 <= milliseconds < LATEST_TIME
    return milliseconds / 1000 if whole else None  # type: ignore[operator]


def local_path(info: RunInfo) -> Path | None:
    """The folder of a run's artifacts on this machine, or None if they are on a server.

    Raises UserError if the folder is not named after the run, as MLflow's are: a store may come from anyone.
    """
    parts = urllib.parse.urlsplit(info.artifacts)
    if parts.scheme not in ("file", ""):
        return None
    path = Path(urllib.request.url2pathname(parts.path)) if parts.scheme else Path(info.artifacts)
    if path.parts[-2:] != (_valid_id(info.id), "artifacts") or ".." in path.parts:
        raise UserError(
            f"the store says that a run keeps its files in {path}; MLflow would not have chosen that folder."
        )
    return path


def cache_folder(run_id: str) -> Path:
    """The folder on this machine for the files of a run whose artifacts are on a server."""
    return Path(platformdirs.user_cache_dir("aelab")) / "runs" / _valid_id(run_id)


def _valid_id(run_id: str) -> str:
    """The id. Raises UserError if it is not one of MLflow's, as it becomes the name of a folder."""
    if not re.fullmatch("[0-9a-f]{32}", run_id):
        raise UserError(f"the store says that a run has the id {run_id[:60]}; that is not an id of MLflow's.")
    return run_id


def run_folder(info: RunInfo) -> Path:
    """The folder of a run's files on this machine, for reading and writing.

    Raises UserError if the folder is a link, or holds a link or anything else that is neither a file nor a folder. Reading or
    writing there would reach other files, or block on a pipe.
    """
    local = local_path(info)
    folder = local or cache_folder(info.id)
    for path in (folder.parent, folder) if local else (folder,):
        if path.is_symlink():
            raise _refused(path, info)
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    with suppress(FileNotFoundError):  # the run's own process may just have deleted it
                        mode = entry.stat(follow_symlinks=False).st_mode
                        if stat.S_ISDIR(mode):
                            waiting.append(Path(entry.path))
                        elif not stat.S_ISREG(mode):
                            raise _refused(Path(entry.path), info)
        except (FileNotFoundError, NotADirectoryError):  # missing, or a file is in the way: writing will say so
            continue
        except OSError as error:
            raise UserError(f"cannot read {error.filename}: {error.strerror}") from error
    return folder


def _refused(path: Path, info: RunInfo) -> UserError:
    kind = "a link; links are refused" if path.is_symlink() else "neither a file nor a folder; it is refused"
    return UserError(
        f"{path} is {kind}.",
        f"Nothing was read or written in the folder of {info.name}. Delete it there and try again.",
    )
