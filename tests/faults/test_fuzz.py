"""Whatever is typed or read: no traceback, no hang. Found by hypothesis, the same in every run."""

import io
import json
import os
import socket
import struct
import sys
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machinery import little_memory
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


# Pictures: good, odd and bad ones of each format


def drawn(mode="L", size=(8, 8)):
    """A picture that is not one colour."""
    values = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    return Image.fromarray(values).convert(mode)


def saved(kind, image=None, **how):
    buffer = io.BytesIO()
    (drawn() if image is None else image).save(buffer, kind, **how)
    return buffer.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width=8, height=8, *more, pixels=b""):
    """A PNG with other chunks before its pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = chunk(b"IDAT", zlib.compress(pixels or b"".join(b"\0" + bytes(range(8)) for _ in range(8))))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + rows + chunk(b"IEND", b"")


def tagged(kind, place, value, size=4):
    """A picture with a number of its header changed."""
    content = bytearray(saved(kind))
    content[place : place + size] = value.to_bytes(size, "little", signed=True)
    return bytes(content)


BOMB = zlib.compress(bytes(1 << 28), 9)  # 256 MB in 256 KB
SIXTEEN = Image.fromarray((np.arange(64, dtype=np.uint16) * 1000).reshape(8, 8))
FRAMES = {"save_all": True, "append_images": [drawn(), drawn()]}
TURNED = Image.Exif()
TURNED[274] = 6
EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(executed) (w) file closefile\nshowpage\n%%EOF\n"
)
GOOD_PICTURES = {
    "grey.png": saved("png"), "colour.png": saved("png", drawn("RGB")), "16-bit.png": saved("png", SIXTEEN),
    "transparent palette.png": saved("png", drawn("P"), transparency=bytes(range(256))), "bilevel.png": saved("png", drawn("1")),
    "transparent.png": saved("png", drawn("RGBA")), "animated.png": saved("png", **FRAMES),
    "text.png": png(8, 8, chunk(b"tEXt", b"a\0b")),
    "grey.jpg": saved("jpeg"), "cmyk.jpeg": saved("jpeg", drawn("CMYK")), "turned.JPG": saved("jpeg", exif=TURNED),
    "a png.jpg": saved("png"), "palette.bmp": saved("bmp", drawn("P")),
    "lossless.webp": saved("webp", drawn("RGBA"), lossless=True),
    "animated.webp": saved("webp", **FRAMES), "animated.gif": saved("gif", **FRAMES), "16-bit.tif": saved("tiff", SIXTEEN),
    "cmyk.tiff": saved("tiff", drawn("CMYK")), "packed.tif": saved("tiff", compression="tiff_lzw"),
    "pages.tif": saved("tiff", **FRAMES),
    "plain.pgm": b"P2 8 8 255 " + b"7 " * 64, "16-bit.pgm": b"P5 8 8 65535 " + bytes(128),
    "colour.ppm": saved("ppm", drawn("RGB")),
}  # fmt: skip
BAD_PICTURES = {
    **{f"truncated.{kind}": content[: len(content) // 2] for kind, content in PICTURES.items()},
    "nothing.png": b"", "eps.png": EPS, "eps.jpg": EPS, "pdf.png": saved("pdf"), "text.gif": b"<svg xmlns='x'/>",
    "icon.png": saved("ico"),
    "jpeg 2000.jpg": saved("jpeg2000", drawn("RGB")), "float.tif": saved("tiff", drawn("F")),
    "zero.png": png(0, 8), "zero.pgm": b"P5 0 8 255 ", "huge.png": png(60_000, 60_000), "huge.pgm": b"P5 99999 99999 255\n",
    "huge.bmp": tagged("bmp", 18, 100_000), "negative.bmp": tagged("bmp", 18, -8),
    "huge.gif": saved("gif")[:6] + b"\xff" * 4 + saved("gif")[10:],
    "no numbers.pgm": b"P5 x y z\n", "digits without end.pgm": b"P5 " + b"9" * 100_000,
    "text that unfolds.png": png(8, 8, chunk(b"zTXt", b"a\0\0" + BOMB)),
    "texts that unfold.png": png(8, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 20)))] * 80),
    "checksum.png": saved("png")[:40] + b"\xff" + saved("png")[41:], "pickle.png": b"cos\nsystem\n(S'touch executed'\ntR.",
}  # fmt: skip


@pytest.fixture
def album(tmp_path):
    """Six pictures that are as they should be."""
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.png").write_bytes(PICTURES["png"])
    return folder


@pytest.fixture
def ghostscript(tmp_path, monkeypatch):
    """A `gs` that tells that it was started."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # it is looked for once
    return tmp_path / "executed"


@pytest.mark.parametrize("name", [*GOOD_PICTURES, *BAD_PICTURES])
def test_a_picture(album, ghostscript, tally, name):
    """Read, or refused in a line that names it; in either case without much memory."""
    content = {**GOOD_PICTURES, **BAD_PICTURES}[name]
    (album / name).write_bytes(content)
    with little_memory(1 << 28):
        if name in GOOD_PICTURES:
            data = open_data(str(album), image_size=8)
            assert sum(map(len, (data.train, data.val, data.test))) == 7
        else:
            with pytest.raises(Problem) as caught:
                open_data(str(album), image_size=8)
            first, *rest = str(caught.value).split("\n")
            assert name in first and len(rest) <= 1 and len(first) < 300
        left = open_data(str(album), image_size=8, skip_bad=True)
        assert bool(left.note) == (name in BAD_PICTURES)
    assert not ghostscript.exists()
    tally("picture")


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket", "dangling", "loop", "device", "link", "link to text"])
def test_what_has_the_name_of_a_picture(album, here, tally, kind):
    path = album / "odd.png"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.path.relpath(path))
    else:
        (here / "text").write_text("no picture")
        path.symlink_to({"dangling": "nowhere", "loop": path, "device": "/dev/zero", "link": album / "0.png",
                         "link to text": here / "text"}[kind])  # fmt: skip
    if kind == "link to text":
        with pytest.raises(Problem, match="odd"):
            open_data(str(album), image_size=8)
    else:
        data = open_data(str(album), image_size=8)
        assert sum(map(len, (data.train, data.val, data.test))) == 6 + (kind == "link")
    tally("picture that is no file")


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
