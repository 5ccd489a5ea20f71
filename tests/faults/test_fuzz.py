"""Whatever is typed or read: no traceback, no hang. Found by hypothesis, the same in every run."""

import inspect
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import zlib
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from machinery import little_memory
from PIL import Image
from typer.main import get_command

from aelab import recipe_files
from aelab.cli import app, main
from aelab.cli.train import _common, _train_command
from aelab.data import open_data
from aelab.data.readers import read_idx
from aelab.errors import UserError
from aelab.tracking import Store
from aelab.tracking.spool import Spool
from aelab.training import checkpoint
from aelab.workflows.planning import Config

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


# Every option of every verb and of every recipe, with values that nobody should type

VALUES_TYPED = (
    *(
        "",
        " ",
        "0",
        "1",
        "-1",
        "-0",
        "1.5",
        "1e5",
        "nan",
        "inf",
        "-inf",
        "1e999",
        "1e-999",
        "0x10",
        "1_0",
        "\u0661",
        "½",
    ),
    *(
        "9" * 400,
        "-" + "9" * 400,
        "9" * 5000,
        str(2**31),
        str(2**63),
        str(2**64),
        str(-(2**63) - 1),
        "1,,2",
        "true",
        "None",
    ),
    *(
        "--",
        "-x",
        "=",
        "a=b",
        "lr=nan",
        "%s%n",
        "{0}",
        "ü✓漢",
        "\x1b[2J",
        "a\nb",
        "\u202eb",
        "\ud800",
        "'\"",
        "$(touch executed)",
    ),
    *(
        "x" * 5000,
        "/",
        ".",
        "..",
        "~",
        "folder",
        "file",
        "file/x.png",
        "no/such/x.png",
        "x.png",
        "x.nothing",
        "/dev/full",
    ),
    *(
        "/dev/null",
        "/proc/self/mem",
        "sqlite:///",
        "sqlite:////",
        "sqlite:///folder",
        "sqlite:///file",
        "sqlite:///no/such/x.db",
    ),
    *(
        "file:///",
        "file:folder",
        "http://",
        "http://127.0.0.1:9",
        "http://a b",
        "http://[",
        "postgresql://u:p@127.0.0.1:9/x",
    ),
    *(
        "models:/",
        "models:/x@y",
        "databricks",
        "digits",
        "theirs",
        "linear",
        "linear.py",
        "latent_dim",
        "test/mse",
        "best/loss",
    ),
    "params.x = 'y'",
)
WHOLE_DISK = {("--data", "/"), ("--data", ".."), ("--data", "~")}  # all of it would be looked through for pictures
NO_TRAINING = ("--data", "no-such-folder")
RUN_IS_THERE = (
    "sample",
    "interpolate",
    "compare",
    "runs show",
    "runs export",
    "runs register",
)  # what these do takes no time
ARGUMENTS = {
    "compare-latent": ("2", *NO_TRAINING),
    "runs export": ("theirs", "out"),
    "runs register": ("theirs", "m"),
    "compare": ("theirs",),
}
TYPED_EACH = 17  # values for an option; all of them together for one that several commands have


COMMON = set(inspect.signature(_common).parameters)


def every_command():
    """Words and the command that they lead to, as typer sees it; of `train` one a recipe."""

    def below(command, words):
        for name, inner in getattr(command, "commands", {}).items():
            if name != "train":
                yield from below(inner, (*words, name))
        if words:
            yield words, command

    yield from below(get_command(app), ())
    for name, page in recipe_files.available().items():
        yield ("train", name), _train_command(page, name)


COMMANDS = dict(every_command())


def lines_of(words, command):
    """Command lines with one bad value each: another part of the values for each option, and all of them in turn."""
    verb = " ".join(words)
    if words[0] == "train":
        rest = NO_TRAINING
    else:
        rest = ARGUMENTS.get(
            verb, ("theirs" if verb in RUN_IS_THERE else "no-such-run",) if command.params[0].name == "run" else ()
        )
    for parameter in command.params:
        chance = random.Random(f"{verb} {parameter.name}")
        shared = words[0] == "train" and parameter.name in COMMON
        for value in chance.sample(VALUES_TYPED, TYPED_EACH // 4 if shared else TYPED_EACH):
            flag = parameter.opts[0]
            if not flag.startswith("-"):  # an argument
                yield (*words, *(word for word in rest if word != "theirs"), "--", value)
            elif (flag, value) not in WHOLE_DISK:
                yield (*words, *rest, *((f"{flag}={value}",) if flag.startswith("--") else (flag, value)))


LINES = {words: list(lines_of(words, command)) for words, command in COMMANDS.items()}


def test_there_are_two_thousand_of_them():
    assert sum(map(len, LINES.values())) >= 2000
    assert {line[-1].partition("=")[2] for lines in LINES.values() for line in lines} >= set(VALUES_TYPED)


@pytest.fixture(scope="module")
def desk(tmp_path_factory, empty_store):
    """A folder with a small run that reconstructs and samples; each test gets a copy."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copy(empty_store, folder / "mlflow.db")
    words = ("train", "linear", "--variational", "--data", "digits", "--max-steps", "2", "--name", "theirs", "-q")
    done = subprocess.run(
        [sys.executable, "-m", "aelab", *words], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (folder / "folder").mkdir()
    (folder / "file").write_text("x")
    return folder


@contextmanager
def limited(seconds):
    """What takes longer hangs."""

    def hang(number, frame):
        raise TimeoutError(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_every_option(desk, monkeypatch, capfd, tally, words):
    """0, 1 or 2 and no traceback; nothing is trained and no page served."""
    monkeypatch.chdir(desk)
    monkeypatch.setattr(
        "aelab.tracking.served", lambda *a: (_ for _ in ()).throw(UserError("no pages are served here"))
    )
    monkeypatch.setattr("webbrowser.open", lambda *a: None)
    monkeypatch.setattr("aelab.workflows.starting.start_run", lambda *a, **k: pytest.fail("a training began"))
    faults = []
    for line in LINES[words]:
        monkeypatch.setattr(sys, "argv", ["aelab", *line])
        with limited(120), pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        if ended.value.code not in (0, 1, 2) or "Traceback" in out + err or len(err.splitlines()) > 5:
            faults.append(f"{line!r:.300}: {ended.value.code} {err[-700:]}")
    assert not faults, f"{len(faults)} of {len(LINES[words])}:\n" + "\n\n".join(faults)
    assert not (desk / "executed").exists()
    tally("value of an option", len(LINES[words]))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["recipe", "settings", "options", "data", "image_size", "epochs", "batch_size", "seed", "skip_bad", "start"]
CONFIGS = st.dictionaries(st.sampled_from(KEYS), VALUES | st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))


FACTS = {
    "image": (None, [], "1x8x8", [1, 8], [1, 8, 8, 8], ["1x8", 8], [1, "8", 8], [1, 8, -8], [1, 9, 9],
              [1, 10**9, 10**9], [1.0, 8, 8], {}),
    "classes": (None, -1, "10", 10.0, True, [10]), "recipe": (None, "vae", 1, []), "recipe_sha256": (None, "0" * 64, 1),
    "options": (None, [], {"latent_dim": 3}, "x"), "data": (None, "mnist"), "data_fingerprint": (None, 1), "device": (None, 3),
    "versions": (None, [1], {"torch": "9"}),
}  # fmt: skip
OF_THE_IMAGES = ("image", "classes")  # all that opening a run needs


@pytest.mark.parametrize("fact", FACTS)
def test_facts_of_a_checkpoint_whose_sum_is_right(desk, monkeypatch, cli, tally, fact):
    """Refused by `resume`, which compares them all, and what they say of images by `eval` too; another device is warned of."""
    monkeypatch.chdir(desk)
    store = Store()
    info = store.find("theirs")
    paths = [path for kind in ("last", "best") for path in checkpoint.present(store.folder(info) / "checkpoints", kind)]
    good = {path: (path / "manifest.json").read_text() for path in paths}
    for value in (*FACTS[fact], "left out"):
        for path, text in good.items():
            manifest = {key: old for key, old in json.loads(text).items() if key != "sha256"} | {fact: value}
            if value == "left out":
                del manifest[fact]
            (path / "manifest.json").write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))
        answers = [cli("resume", "theirs", "--epochs", "500")] if fact != "device" else []
        answers += [cli("eval", "theirs", "--plain")] if fact in OF_THE_IMAGES else []
        for answer in answers:
            assert answer.code == 1 and len(answer.err.splitlines()) <= 3 and "Traceback" not in answer.err, (
                value,
                answer,
            )
            tally("fact of a checkpoint")
    for path, text in good.items():
        (path / "manifest.json").write_text(text)


@pytest.fixture
def configuration(desk, monkeypatch):
    """The path of the run's config.json, which is afterwards as it was."""
    monkeypatch.chdir(desk)
    path = Store().folder(Store().find("theirs")) / "config.json"
    good = path.read_text()
    yield path
    path.write_text(good)


NO_CONFIGS = {
    "epochs": ("2", None, -1, 0, 1.5, True, [], 1e999), "batch_size": (0, -1, "8", None), "seed": (-1, "x", None, 1.5),
    "ema": (2, -1, "x", None), "schedule": ("x", 1, None), "precision": ("x", None), "patience": (0, "1"),
    "max_steps": (-1, "1", 0),
    "warmup": (-1, None), "skip_nonfinite": (-1, "1"), "augment": (1, "", "no", [], "flip,"), "device": (1, None), "more": (1,),
    "options": (None, [], {"latent_dim": "x"}, {"latent_dim": -1}, {"latent_dim": None}, {"latent_dim": 1.5}, {"lr": "x"},
                {"nothing": 1}, {"latent_dim": True}, {"variational": 3}, {"lr": 1e999}, {"latent_dim": [1]},
                {"latent_dim": 10**400}),
    "recipe": (None, 1, []), "data": (None, 1, [], "no-such", "x" * 5000, "\ud800"), "image_size": ("x", -1, [], 1.5),
    "split_seed": (-1, "x", None), "start": (1, []), "skip_bad": ("x", None, 1),
}  # fmt: skip


@pytest.mark.parametrize("key", NO_CONFIGS)
def test_a_configuration_of_a_run_that_is_none(configuration, cli, tally, key):
    good = configuration.read_text()
    for value in NO_CONFIGS[key]:
        config = json.loads(good)
        (config if key in config else config["settings"])[key] = value
        configuration.write_text(json.dumps(config))
        for answer in (cli("eval", "theirs", "--plain"), cli("resume", "theirs", "--epochs", "500")):
            assert answer.code in (1, 2), (value, answer)
            assert len(answer.err.splitlines()) <= 3 and "Traceback" not in answer.err, (value, answer)
        tally("configuration that is none")


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
    except UserError as problem:
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
    except UserError as problem:
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
            with pytest.raises(UserError) as caught:
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
        with pytest.raises(UserError, match="odd"):
            open_data(str(album), image_size=8)
    else:
        data = open_data(str(album), image_size=8)
        assert sum(map(len, (data.train, data.val, data.test))) == 6 + (kind == "link")
    tally("picture that is no file")


@pytest.fixture
def whole(tmp_path):
    return checkpoint.save(tmp_path, "last", 1, {"w": torch.ones(2)}, {"progress": {"step": 1}}, {"recipe": "x"})


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
    except UserError as problem:
        assert str(whole) in str(problem)


@OFTEN
@given(facts=st.dictionaries(st.sampled_from(["format", "files", "kind", "step", "sha256"]), VALUES))
def test_a_manifest_whose_sum_is_right(whole, facts):
    manifest = {"format": 1, "files": {}, **json.loads(json.dumps(facts))}
    manifest["sha256"] = checkpoint._digest(manifest)
    (whole / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError):
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
    except UserError as problem:
        assert str(whole) in str(problem)


@OFTEN
@given(content=damaged(b'["metric", "a", 1.0, 2, 3]\n["tags", {"a": "b"}]\n["picture", "a", 1, "a.png"]\n'))
def test_a_spool(tmp_path, content):
    path = tmp_path / "unsent.jsonl"
    path.write_bytes(content)
    assert all(isinstance(entry, list) for entry in Spool(path).entries())
    assert Path(path).exists()
