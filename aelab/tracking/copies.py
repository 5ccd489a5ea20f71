"""Local copies of the files of runs whose artifacts are on a server."""

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mlflow.tracking import MlflowClient

from aelab.errors import UserError
from aelab.tracking.info import RunInfo, cache_folder
from aelab.tracking.trouble import reason_of


def copy(client: MlflowClient, info: RunInfo, parts: Sequence[str]) -> Path:
    """A local folder with config.json, the newest checkpoints and `parts` of a run. What it already holds is not downloaded."""
    cache = cache_folder(info.id)
    for part in ("config.json", *parts):
        if not (cache / part).exists():
            _fetch(client, info, part)
    try:
        kept = [Path(entry.path).name for entry in client.list_artifacts(info.id, "checkpoints")]
    except Exception as error:  # MLflow's, requests'
        if (cache / "checkpoints").exists():
            return cache
        raise UserError(f"cannot fetch the checkpoints of run {info.name}: {reason_of(error)}") from error
    for kind in ("last", "best"):  # another machine may have resumed the run
        for name in sorted((name for name in kept if re.fullmatch(rf"{kind}-\d+", name)), reverse=True):
            if (cache / "checkpoints" / name).exists():
                break
            if _is_complete(client, info, name):
                _fetch(client, info, f"checkpoints/{name}")
                break
    return cache


def _is_complete(client: MlflowClient, info: RunInfo, checkpoint: str) -> bool:
    """Whether all of a checkpoint was uploaded: its manifest is sent last. Without an answer, the download will say why."""
    try:
        return any(
            Path(file.path).name == "manifest.json"
            for file in client.list_artifacts(info.id, f"checkpoints/{checkpoint}")
        )
    except Exception:  # noqa: BLE001  # MLflow's, requests'
        return True


def _fetch(client: MlflowClient, info: RunInfo, part: str) -> None:
    """Downloads a part of a run's files atomically. Raises UserError for a link, and for a path that leads out of the folder."""
    cache = cache_folder(info.id)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".part-") as unfinished:
            source = Path(client.download_artifacts(info.id, part, unfinished))
            if not source.resolve().is_relative_to(Path(unfinished).resolve()):
                raise UserError(f"{part} of run {info.name} leads out of its folder.")
            if any(path.is_symlink() for path in (source, *source.rglob("*"))):
                raise UserError(f"{part} of run {info.name} holds a link; links are refused.")
            (cache / part).parent.mkdir(exist_ok=True)
            source.rename(cache / part)
    except UserError:
        raise
    except Exception as error:  # MLflow's, requests', the file system's
        raise UserError(f"cannot fetch {part} of run {info.name}: {reason_of(error)}") from error
