"""Whatever is typed or read: no traceback, no hang. Found by hypothesis, the same in every run."""

import io
import json
import struct
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from aelab import checkpoint
from aelab.cli import main
from aelab.config import Config
from aelab.data import open_data
from aelab.data.files import read_idx
from aelab.problem import Problem
from aelab.tracking.spool import Spool

OFTEN = settings(
    max_examples=100, deadline=60_000, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

VERBS = [
    "train",
    "resume",
    "sync",
    "eval",
    "sample",
    "interpolate",
    "compare",
    "compare-latent",
    "runs",
    "recipes",
    "data",
]
WORDS = st.one_of(
    st.sampled_from([
        *VERBS, "linear", "vae", "--help", "--epochs", "--data", "digits", "--resume", "--set", "lr=3", "-n", "--json", "-q",
        "--",
        "--latent-dim", "0", "-1", "nan", "1e999", "--name", "--seed", "--device", "cpu", "--offline", "--filter", "--table",
        "--batch-size", "--hidden", "1,,2", "--precision", "tf32", "--max-steps", "--schedule", "--force", "--out", "/",
    ]),
    st.text(max_size=12).filter(lambda text: "\0" not in text),
)  # fmt: skip


@OFTEN
@given(verb=st.sampled_from([*VERBS, ""]), words=st.lists(WORDS, max_size=6))
def test_the_command_line(here, capsys, monkeypatch, verb, words):
    """No training begins: there is no such data set."""
    train = ["--data", "no-such-folder"] if verb in ("train", "compare-latent") else []
    monkeypatch.setattr(sys, "argv", ["aelab", *[verb] * bool(verb), *words, *train])
    with pytest.raises(SystemExit) as ended:
        main()
    out = capsys.readouterr()
    assert ended.value.code in (0, 1, 2), out.err
    assert "Traceback" not in out.err + out.out


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["recipe", "settings", "options", "data", "image_size", "epochs", "batch_size", "seed", "skip_bad", "start"]
CONFIGS = st.dictionaries(st.sampled_from(KEYS), VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))


@OFTEN
@given(value=VALUES | CONFIGS)
def test_a_configuration(value):
    """What `runs.configuration` catches, and nothing else."""
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        Config.from_json(json.loads(json.dumps(value)))


def damaged(content):
    """Bytes like these: cut, changed, grown, or all others."""
    change = st.tuples(st.integers(0, len(content) - 1), st.binary(min_size=1, max_size=8))
    return st.one_of(
        st.binary(max_size=300),
        st.integers(0, len(content)).map(lambda n: content[:n]),
        st.lists(change, min_size=1, max_size=4).map(
            lambda changes: bytes(_changed(bytearray(content), changes)),
        ),
        st.binary(max_size=50).map(lambda more: content + more),
    )


def _changed(content, changes):
    for place, new in changes:
        content[place : place + len(new)] = new
    return content


@OFTEN
@given(content=damaged(struct.pack(">HBB3I", 0, 8, 3, 2, 4, 4) + bytes(range(32))), name=st.sampled_from(["x", "x.gz"]))
def test_an_idx_file(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    try:
        assert read_idx(tmp_path / name).dtype == torch.uint8
    except Problem as problem:
        assert name in str(problem)


def picture(kind):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(buffer, kind)
    return buffer.getvalue()


PICTURES = {kind: picture(kind) for kind in ("png", "bmp", "gif", "tiff", "webp", "jpeg", "ppm")}


@OFTEN
@given(data=st.data(), kind=st.sampled_from(sorted(PICTURES)), skip=st.booleans())
def test_a_folder_of_pictures(tmp_path, data, kind, skip):
    content = data.draw(damaged(PICTURES[kind]))
    folder = tmp_path / "album"
    folder.mkdir(exist_ok=True)
    for number in range(6):
        (folder / f"{number}.png").write_bytes(PICTURES["png"])
    for old in folder.glob("bad.*"):
        old.unlink()
    (folder / f"bad.{kind}").write_bytes(content)
    try:
        assert len(open_data(str(folder), image_size=8, skip_bad=skip).train) >= 3
    except Problem as problem:
        assert "bad." in str(problem) and not skip


@pytest.fixture
def whole(tmp_path):
    return checkpoint.save(tmp_path, "last", 1, {"w": torch.ones(2)}, {"position": {"step": 1}}, {"recipe": "x"})


@OFTEN
@given(data=st.data())
def test_a_manifest(whole, data):
    path = whole / "manifest.json"
    good = path.with_name("good")
    if not good.exists():
        good.write_bytes(path.read_bytes())
    path.write_bytes(data.draw(damaged(good.read_bytes()) | VALUES.map(lambda value: json.dumps(value).encode())))
    try:
        assert checkpoint.load(whole).weights["w"].eq(1).all()
    except Problem as problem:
        assert str(whole) in str(problem)


@OFTEN
@given(facts=st.dictionaries(st.sampled_from(["format", "files", "kind", "step", "sha256"]), VALUES))
def test_a_manifest_whose_sum_is_right(whole, facts):
    manifest = {"format": 1, "files": {}, **json.loads(json.dumps(facts))}
    manifest["sha256"] = checkpoint._digest(manifest)
    (whole / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(Problem):
        checkpoint.load(whole)


@OFTEN
@given(
    content=damaged(
        (whole_state := io.BytesIO(), torch.save({"a": torch.ones(2)}, whole_state), whole_state.getvalue())[2]
    )
)
def test_a_state_whose_sum_is_right(whole, content):
    manifest = json.loads((whole / "manifest.json").read_text())
    del manifest["sha256"]
    (whole / "state.pt").write_bytes(content)
    manifest["files"]["state.pt"] = {"sha256": checkpoint.hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (whole / "manifest.json").write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))
    try:
        assert isinstance(checkpoint.load(whole).state, dict)
    except Problem as problem:
        assert str(whole) in str(problem)


@OFTEN
@given(content=damaged(b'["metric", "a", 1.0, 2, 3]\n["tags", {"a": "b"}]\n["picture", "a", 1, "a.png"]\n'))
def test_a_spool(tmp_path, content):
    path = tmp_path / "unsent.jsonl"
    path.write_bytes(content)
    assert all(isinstance(entry, list) for entry in Spool(path).entries())
    assert Path(path).exists()
