"""Checkpoints: folders that are written atomically, and verified before they are used.

    checkpoints/last-00001250/   weights.safetensors  state.pt  manifest.json      all that a resume needs; two are kept
    checkpoints/best-00001000/   weights.safetensors  manifest.json                the weights of the best validation

A finished run keeps one last checkpoint, and no best one if the manifest of the last says that its weights are the best
("best": true). A folder is written under another name, synced and renamed, so that a kill leaves the old one. The manifest
holds the sha256 of every file, as torch.load does not notice flipped bits.
"""

import hashlib
import io
import json
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from torch import Tensor

from aelab.errors import UserError
from aelab.files import read_small_file

log = logging.getLogger(__name__)

FORMAT = 1
Kind = Literal["last", "best"]
MAX_KEPT: Mapping[Kind, int] = {"last": 2, "best": 1}


class OtherFormat(UserError):
    """A checkpoint in the format of another version of aelab. It is not damaged, so it must not be skipped."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint: the recipe's weights, the training state (empty for a best one), and the manifest."""

    path: Path
    weights: dict[str, Tensor]
    state: dict[str, Any]
    manifest: dict[str, Any]


def save(
    folder: Path,
    kind: Kind,
    step: int,
    weights: Mapping[str, Tensor],
    state: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Writes one checkpoint into `folder` and removes the older ones of its kind that are no longer kept.

    A checkpoint of the same kind and step that verifies is not written again. `facts` goes into the manifest. Raises OSError
    if the disk does not take it; the checkpoints that were there stay intact.
    """
    files = {"weights.safetensors": safetensors.torch.save(_copied(weights))}
    if state:
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        files["state.pt"] = buffer.getvalue()
    sums = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in files.items()
    }
    manifest = {"format": FORMAT, "kind": kind, "step": step, **facts, "files": sums}
    files["manifest.json"] = json.dumps({**manifest, "sha256": _digest(manifest)}, indent=2).encode()

    target = folder / f"{kind}-{step:08d}"
    if target.exists() and _verifies(target):
        return target
    unfinished = folder / f".{target.name}.{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(f".{kind}-*"):  # left by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    try:
        unfinished.mkdir()
        for name, content in files.items():
            with (unfinished / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(unfinished)
        shutil.rmtree(target, ignore_errors=True)  # a damaged one
        unfinished.rename(target)
        _sync(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    others = [path for path in present(folder, kind) if path != target]
    before = [path for path in others if path.name < target.name]
    for old in set(others) - set(
        before[: MAX_KEPT[kind] - 1]
    ):  # a later one did not verify, or this step would not be taken again
        shutil.rmtree(old, ignore_errors=True)
    return target


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies of weights that share no memory: safetensors refuses tied weights."""
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in weights.items()}


def _digest(manifest: Mapping[str, Any]) -> str:
    facts = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _verifies(path: Path) -> bool:
    try:
        load(path)
    except UserError:
        return False
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def present(folder: Path, kind: Kind) -> list[Path]:
    """The checkpoints of a kind in a folder, newest first."""
    return sorted((path for path in folder.glob(f"{kind}-*") if path.is_dir()), reverse=True)


def finish(folder: Path) -> None:
    """Removes from a finished run all but the newest last checkpoint and the best one; the latter too if both are the same.

    If the newest one does not verify, nothing is removed.
    """
    lasts = present(folder, "last")
    try:
        best = bool(lasts) and load(lasts[0]).manifest.get("best") is True
    except UserError:
        return
    for old in lasts[1:] + (present(folder, "best") if best else []):
        shutil.rmtree(old, ignore_errors=True)


def _with_weights(folder: Path, kind: Kind) -> list[Path]:
    """The checkpoints that hold the weights of a kind, newest first. A last checkpoint may hold the best weights."""
    paths = present(folder, kind)
    if kind == "best":
        paths += [path for path in present(folder, "last") if _is_best(path)]
    return sorted(paths, key=lambda path: path.name.partition("-")[2], reverse=True)


def _is_best(path: Path) -> bool:
    """Whether the manifest of a last checkpoint says that its weights are the best. It is verified only when it is loaded."""
    try:
        return json.loads(read_small_file(path / "manifest.json"))["best"] is True
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def load(path: Path) -> Checkpoint:
    """Reads and verifies one checkpoint. Raises UserError, naming the file, if anything is missing, altered or unknown."""
    try:
        manifest = json.loads(read_small_file(path / "manifest.json"))
        if manifest["format"] != FORMAT:
            raise OtherFormat(
                f"checkpoint {path} has format {manifest['format']}; this version of aelab reads {FORMAT}."
            )
        if manifest["sha256"] != _digest(manifest):
            raise UserError(
                f"checkpoint {path / 'manifest.json'} is altered: its sha256 differs from the one that it states."
            )
        if path.name != f"{manifest['kind']}-{manifest['step']:08d}":
            raise UserError(
                f"checkpoint {path} has another name than its manifest says: {manifest['kind']}, {manifest['step']}."
            )
        files = {name: _verified(path, name, facts) for name, facts in manifest["files"].items()}
        weights = safetensors.torch.load(files["weights.safetensors"])
        state = _state(path, files["state.pt"]) if manifest["kind"] == "last" else {}
    except UserError:
        raise
    except Exception as error:  # a crafted file can make json, safetensors, zipfile or pickle raise anything
        raise UserError(f"checkpoint {path} cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from error
    return Checkpoint(path, weights, state, manifest)


def _verified(path: Path, name: str, facts: Mapping[str, Any]) -> bytes:
    """The content of one file. Raises UserError if it is a link or differs from the manifest."""
    file = path / Path(name).name
    if file.is_symlink() or path.is_symlink():
        raise UserError(f"checkpoint {file} is a link; links are refused.")
    content = read_small_file(file, facts["bytes"]) if file.stat().st_size == facts["bytes"] else b""
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise UserError(f"checkpoint {path / name} is truncated or altered: its sha256 is not the manifest's.")
    return content


def _state(path: Path, content: bytes) -> dict[str, Any]:
    """The training state in `content`, as torch.save wrote it. Code and compressed data are refused."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > len(content):  # torch stores, it does not compress
            raise UserError(f"checkpoint {path / 'state.pt'} is compressed; aelab writes none like it.")
    try:
        state = torch.load(io.BytesIO(content), weights_only=True)
    except Exception as error:  # not shown: torch's message advises the user to load it in a way that executes code
        raise UserError(
            f"checkpoint {path / 'state.pt'} cannot be read: it is damaged, or holds what aelab never writes."
        ) from error
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path / 'state.pt'} holds no state of a training.")
    return state


def newest(folder: Path, kind: Kind, warn: Callable[[str], object] = log.warning) -> Checkpoint | None:
    """The newest checkpoint of a kind that verifies, or None. `warn` is called for each damaged one that is skipped.

    The best weights may be in a last checkpoint. Raises UserError for a checkpoint in another format.
    """
    paths = _with_weights(folder, kind)
    for number, path in enumerate(paths, 1):
        try:
            return load(path)
        except OtherFormat:
            raise
        except UserError as problem:
            warn(f"{problem} {'Trying the one before it.' if number < len(paths) else 'There is none before it.'}")
    return None
