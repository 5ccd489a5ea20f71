"""Nobody gets in: nothing that is read executes, leads elsewhere or unfolds, and no secret leaves."""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import sqlite3
import struct
import subprocess
import sys
import urllib.request
import zipfile
import zlib
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace

import pytest
import torch
from machinery import DIGITS, free_port, little_memory, run_folder, until

from aelab.data.readers import read_idx
from aelab.errors import UserError, redacted
from aelab.tracking import Store, served
from aelab.tracking.owner import origin
from aelab.training import checkpoint

CANARY = "canary-7f3a91"
WORDS = ("train", "linear", *DIGITS, "--epochs", 2)


class Evil:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return (Path.touch, (Path(self.marker),))


def replaced(path, **files):
    """The checkpoint with other files and a manifest that is true of them."""
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    for name, content in files.items():
        (path / (file := name.replace("_", "."))).write_bytes(content)
        manifest["files"][file] = {"sha256": checkpoint.hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (path / "manifest.json").write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))


def zipped(pickled, **how):
    """What torch.save would write around a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **how) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3")
    return buffer.getvalue()


def written(tmp_path):
    return checkpoint.save(tmp_path, "last", 1, {"w": torch.ones(2)}, {"progress": {"step": 1}}, {"recipe": "x"})


@pytest.mark.parametrize("form", ["raw", "zipped", "torch"])
def test_a_pickle_that_would_execute_is_refused(tmp_path, tally, form):
    path, marker = written(tmp_path), tmp_path / "executed"
    pickled = pickle.dumps({"progress": Evil(marker)}, 2)
    buffer = io.BytesIO()
    torch.save({"progress": Evil(marker)}, buffer)
    replaced(path, state_pt={"raw": pickled, "zipped": zipped(pickled), "torch": buffer.getvalue()}[form])
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(path)
    assert not marker.exists()
    pickle.loads(pickled)
    assert marker.exists(), "it would have"
    tally("pickle that would execute")


def test_an_archive_that_unfolds_is_refused_before_memory_goes(tmp_path, tally):
    path = written(tmp_path)
    bomb = zipped(bytes(1 << 29), compression=zipfile.ZIP_DEFLATED)
    assert len(bomb) < 1 << 20
    replaced(path, state_pt=bomb)
    with little_memory(1 << 28), pytest.raises(UserError, match="compressed"):
        checkpoint.load(path)
    tally("archive that unfolds")


@pytest.mark.parametrize("packed", [True, False])
def test_an_idx_that_unfolds_is_refused_before_memory_goes(tmp_path, tally, packed):
    header = struct.pack(">HBB3I", 0, 8, 3, 40_000, 1000, 1000)
    path = tmp_path / ("bomb.gz" if packed else "bomb")
    path.write_bytes(gzip.compress(header + bytes(1 << 20)) if packed else header + bytes(100))
    with little_memory(1 << 28), pytest.raises(UserError, match="bomb"):
        read_idx(path)
    path.write_bytes(struct.pack(">HBB3I", 0, 8, 3, 400, 1000, 1000) + bytes(100))
    if not packed:
        with little_memory(1 << 28), pytest.raises(UserError, match="it promises 400000000 bytes and has 100"):
            read_idx(path)
    tally("IDX that unfolds")


def png(width, height):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def test_pictures_that_unfold_are_refused_before_memory_goes(aelab, here, tally):
    (here / "album").mkdir()
    (here / "album" / "a.png").write_bytes(png(60_000, 60_000))
    limit = "resource.setrlimit(resource.RLIMIT_AS, (int(open('/proc/self/statm').read().split()[0]) * 4096 + (1 << 30),) * 2)"
    process = aelab.run("train", "linear", "--data", "album", patch=limit, code=1)
    assert "a.png" in process.err and "pixels" in process.err
    for number in range(5000):  # each of them is allowed, all of them are not
        (here / "album" / "a.png").unlink(missing_ok=True)
        (here / "album" / f"{number:04d}.pgm").write_bytes(b"P5 7000 7000 255\n")
    process = aelab.run("train", "linear", "--data", "album", patch=limit, code=2)
    assert "5,000 pictures of 7000 x 7000 need 491 GB of memory" in process.err and len(process.err.splitlines()) <= 3
    tally("pictures that unfold", 2)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_in_a_checkpoint_is_refused(tmp_path, tally, what):
    path = written(tmp_path / "a")
    if what == "file":
        (path / "weights.safetensors").rename(tmp_path / "elsewhere")
        (path / "weights.safetensors").symlink_to(tmp_path / "elsewhere")
    else:
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="links are refused"):
        checkpoint.load(path)
    tally("link in a checkpoint")


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "a/../../secret"])
def test_a_path_in_a_manifest_does_not_lead_elsewhere(tmp_path, name):
    path = written(tmp_path / "a")
    (tmp_path / "secret").write_text("s")
    manifest = json.loads((path / "manifest.json").read_text())
    del manifest["sha256"]
    manifest["files"][name] = {"sha256": checkpoint.hashlib.sha256(b"s").hexdigest(), "bytes": 1}
    (path / "manifest.json").write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))
    with pytest.raises(UserError):
        checkpoint.load(path)


class Crafted(BaseHTTPRequestHandler):
    """A tracker that lists artifacts whose paths lead out, and says that a run lives in a folder of its choice."""

    def do_GET(self):
        own = {"run_id": self.server.id, "run_uuid": self.server.id, "run_name": "r"}
        run = {"info": {**own, "status": "FINISHED", "experiment_id": "1",
                        "start_time": 1, "artifact_uri": self.server.place},
               "data": {"tags": [{"key": "aelab.recipe", "value": "linear"}, {"key": "aelab.kind", "value": "run"}]}}  # fmt: skip
        answers = {
            "health": "OK",
            "experiments/search": {"experiments": [{"experiment_id": "1", "name": "aelab", "artifact_location": "x"}]},
            "runs/search": {"runs": [run]},
            "runs/get": {"run": run},
            "artifacts": {"files": [{"path": self.server.path, "is_dir": False, "file_size": 5}]},
        }
        path = self.path.split("?")[0]
        found = next((a for key, a in answers.items() if path.endswith(key)), None)
        content = json.dumps(found).encode() if found else b"import os"
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815

    def log_message(self, *arguments):
        pass


@contextmanager
def crafted(place, path, run_id="a" * 32):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Crafted)
    server.place, server.path, server.id = place, path, run_id
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.mark.parametrize(
    "path", ["../../../escaped", "config.json/../../../../escaped", "/escaped", "%2e%2e/%2e%2e/escaped"]
)
def test_artifact_paths_cannot_leave_the_destination(aelab, here, tally, path):
    with crafted("mlflow-artifacts:/1/" + "a" * 32 + "/artifacts", path) as uri:
        process = aelab.run("eval", "r", "--tracking-uri", uri, code=1)
    assert "Traceback" not in process.err
    assert not list(here.rglob("*escaped*")) and not Path("/escaped").exists()
    tally("artifact path that leads out")


def test_a_tracker_does_not_choose_where_a_run_is_written(aelab, here, tally):
    target = here / "precious"
    target.mkdir()
    with crafted(target.as_uri(), "config.json") as uri:
        process = aelab.run("resume", "r", "--tracking-uri", uri, code=1)
    assert "MLflow would not have chosen that folder" in process.err
    assert not list(target.iterdir())
    tally("run in a folder that is none of MLflow's")


def test_nor_by_the_id_of_a_run(aelab, here, tally):
    """Files of a run on a server are kept in the cache folder, under its id."""
    with crafted("mlflow-artifacts:/1/" + "a" * 32 + "/artifacts", "config.json", "../../../precious") as uri:
        for verb in ("eval", "resume", "sample"):
            process = aelab.run(verb, "r", "--tracking-uri", uri, code=1)
            assert "that is not an id of MLflow's" in process.err and "Traceback" not in process.err
            assert len(process.err.splitlines()) == 1 + (verb == "resume"), "it looks for dead runs before, and warns"
    assert not list(here.rglob("*precious*"))
    tally("run with an id that leads out")


def test_a_run_of_a_tracker_never_has_its_code_executed(aelab, here, server, tally):
    """The recipe in its artifacts is for reading; what runs is the local one of that name."""
    source = Path(__file__).parents[2].joinpath("recipes", "linear.py").read_text()
    (here / "mine.py").write_text(source)
    aelab.run("train", "./mine.py", *DIGITS, "--epochs", 1, "--name", "theirs")
    store = Store()
    info = store.find("theirs")
    evil = here / "evil"
    evil.mkdir()
    for name in ("mine.py", "linear.py"):
        (evil / name).write_text(f"import pathlib; pathlib.Path({str(here / 'executed')!r}).touch()\n" + source)
        store.client.log_artifact(info.id, str(evil / name), "recipe")
    cache = here / "cache" / "aelab" / "runs" / info.id
    config = json.loads((cache / "config.json").read_text()) | {"recipe": str(cache / "recipe" / "mine.py")}
    (evil / "config.json").write_text(json.dumps(config))
    store.client.log_artifact(info.id, str(evil / "config.json"))
    (here / "mine.py").unlink()
    for path in sorted((here / "cache").rglob("*"), reverse=True):  # another machine
        path.rmdir() if path.is_dir() else path.unlink()
    (cache / "recipe").mkdir(parents=True)
    (cache / "recipe" / "mine.py").write_text((evil / "mine.py").read_text())
    process = aelab.run("eval", "theirs", code=2)
    assert "is not executed" in process.err and not (here / "executed").exists()
    assert not (here / "executed").exists()
    tally("code in a tracker's run")


# A run that a stranger made: whatever its configuration names as its recipe is not executed

VICTIM = ("--data", "digits", "-q")


@pytest.fixture
def theirs(cli, here):
    """A run of `linear`, what it is tampered with, and whether anything of the stranger's was executed."""
    assert cli("train", "linear", *DIGITS, "--max-steps", 2, "--name", "theirs").code == 0
    folder = run_folder("theirs")

    def config(**changes):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return SimpleNamespace(folder=folder, config=config, marker=here / "executed")


def evil(path, marker):
    """The linear recipe with a line that gives itself away."""
    source = Path(__file__).parents[2].joinpath("recipes", "linear.py").read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{source}\nimport pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    return path


OPENERS = {
    "eval": ("eval", "theirs", "--plain"),
    "sample": ("sample", "theirs"),
    "interpolate": ("interpolate", "theirs", "--pairs", 1),
    "export": ("runs", "export", "theirs", "out"),
    "resume": ("resume", "theirs", "--epochs", 90, "--force"),
    "train --resume": ("train", "--resume", "theirs", "--epochs", 90),
    "train RECIPE --resume": ("train", "linear", "--resume", "theirs", "--epochs", 90),
    "train --start": ("train", "linear", *VICTIM, "--max-steps", 1, "--start", "theirs"),
    "compare --pictures": ("compare", "theirs", "--pictures", "sheets"),
}


@pytest.mark.parametrize("words", OPENERS.values(), ids=OPENERS)
def test_a_recipe_that_only_a_run_names_is_not_executed(cli, here, theirs, tally, words):
    page = evil(here / "elsewhere" / "mine.py", theirs.marker)
    theirs.config(recipe=str(page))
    answer = cli(*words)
    assert not theirs.marker.exists()
    assert answer.code in (1, 2) and "Traceback" not in answer.err
    assert len(answer.err.splitlines()) <= 3 and f"aelab train {page}" in answer.err
    tally("recipe that only a run names")


@pytest.mark.parametrize("place", ["run", "other run", "export", "data", "recipe tag", "link"])
def test_nor_one_in_another_run_an_export_a_data_folder_or_the_store(cli, here, theirs, tally, place):
    if place == "run":
        theirs.config(recipe=str(evil(theirs.folder / "recipe" / "linear.py", theirs.marker)))
    elif place == "other run":
        other = here / "mlruns" / "x" / ("b" * 32) / "artifacts" / "recipe" / "linear.py"
        theirs.config(recipe=str(evil(other, theirs.marker)))
    elif place == "export":
        assert cli("runs", "export", "theirs", "out").code == 0
        theirs.config(recipe=str(evil(here / "out" / "linear.py", theirs.marker)))
    elif place == "data":
        theirs.config(recipe=os.path.relpath(evil(here / "album" / "linear.py", theirs.marker)))
    elif place == "recipe tag":  # the name in the store is a name, never a path
        evil(here / "evil.py", theirs.marker)
        theirs.config(recipe="gone.py")
        store = Store()
        store.client.set_tag(store.find("theirs").id, "aelab.recipe", "evil.py.py")
    else:
        (here / "recipe.py").symlink_to(evil(here / "elsewhere" / "evil.py", theirs.marker))
        theirs.config(recipe="recipe.py")
    answer = cli("eval", "theirs", "--plain")
    assert not theirs.marker.exists()
    assert answer.code in (1, 2) and "Traceback" not in answer.err and len(answer.err.splitlines()) <= 3
    tally("recipe that only a run names")


def test_a_sweep_that_goes_on_with_a_strangers_run_does_not_execute_its_recipe(cli, here, tally):
    sweep = ("compare-latent", 2, "--recipe", "linear", *DIGITS, "--max-steps", 2)
    assert cli(*sweep).code == 0
    store, marker = Store(), here / "executed"
    run = next(info for info in store.runs() if info.parent)
    store.client.set_terminated(run.id, "KILLED")
    path = store.folder(run) / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"recipe": str(evil(here / "else" / "linear.py", marker))})
    )
    assert cli(*sweep).code == 1
    assert not marker.exists()
    tally("recipe that only a run names")


def test_a_recipe_that_was_typed_is_remembered_byte_for_byte(cli, here, tally):
    """`train ./mine.py`, then `eval mine`; after the least change it has to be typed again."""
    marker = here / "executed"
    source = Path(__file__).parents[2].joinpath("recipes", "linear.py").read_text()
    (here / "mine.py").write_text(source)
    assert cli("train", "./mine.py", *DIGITS, "--max-steps", 2).code == 0
    assert cli("eval", "mine", "--plain").code == 0
    evil(here / "mine.py", marker)
    answer = cli("eval", "mine", "--plain")
    assert answer.code == 2 and not marker.exists()
    assert "aelab train" in answer.err and "mine.py --help" in answer.err
    assert cli("train", "./mine.py", "--help").code == 0
    assert marker.exists(), "typed"
    assert cli("eval", "mine", "--plain").code == 0
    (here / "moved").mkdir()
    (here / "mine.py").rename(here / "moved" / "mine.py")
    config = run_folder("mine") / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"recipe": str(here / "moved" / "mine.py")}))
    assert cli("eval", "mine", "--plain").code == 2, "the same bytes at another place were not typed"
    (here / "recipes").mkdir()
    (here / "moved" / "mine.py").rename(here / "recipes" / "mine.py")
    assert cli("eval", "mine", "--plain").code == 0
    tally("recipe changed since it was typed")


def test_compiled_code_beside_a_recipe_is_not_executed(cli, here, tally):
    """Python would believe a .pyc whose header says that nobody need compare it with its source."""
    marker, source = here / "executed", Path(__file__).parents[2].joinpath("recipes", "linear.py").read_text()
    (here / "mine.py").write_text(source)
    code = compile(f"{source}\nimport pathlib\npathlib.Path({str(marker)!r}).touch()\n", "mine.py", "exec")
    cached = Path(importlib.util.cache_from_source(str(here / "mine.py")))
    cached.parent.mkdir()
    cached.write_bytes(importlib._bootstrap_external._code_to_hash_pyc(code, b"12345678", False))
    assert cli("train", "./mine.py", *DIGITS, "--max-steps", 2).code == 0
    assert cli("eval", "mine", "--plain").code == 0
    assert not marker.exists()
    tally("compiled code beside a recipe")


def test_a_recipe_that_takes_the_name_of_a_built_in_one_is_said(cli, here, tally):
    (here / "recipes").mkdir()
    shutil.copy(Path(__file__).parents[2] / "recipes" / "linear.py", here / "recipes" / "linear.py")
    for words in (("train", "linear", *DIGITS, "--max-steps", 2), ("eval", "linear", "--plain"), ("sample", "linear")):
        answer = cli(*words)
        assert answer.err.count("instead of the built-in") == 1, answer.err
    tally("recipe with the name of a built-in one")


# A run's folder that a stranger made: what is in it is never another file


def outside(here):
    """What no verb may read, change or delete: a start-up file, a picture, and their content."""
    (here / "home").mkdir()
    for name in ("rc", "a-1.png", "b-2.webp"):
        (here / "home" / name).write_text(CANARY + name)
    return {path: path.read_bytes() for path in (here / "home").iterdir()}


def untouched(here, before):
    assert {path: path.read_bytes() for path in (here / "home").iterdir()} == before
    for path in here.rglob("*"):
        if path.is_file() and path.parent != here / "home" and not path.is_symlink():
            assert CANARY.encode() not in path.read_bytes(), path


def tracked(store, *spool, **tags):
    """The folder of a run that has something to send."""
    run = store.create(None, "theirs", params={}, tags={"aelab.recipe": "linear", "aelab.kind": "run", **tags})
    run.close("FINISHED")
    (run.folder / "unsent.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in spool))
    return run.folder


PICTURE = ["picture", "a", 1, "a-1.png"]
SPOOLED = {
    "refused.jsonl": ("home/rc", ["metric", "$(touch pwned)", 1.0, 1, 5]),
    "unsent.jsonl": ("home/rc", ["metric", "a", 1.0, 1, 5]),
    "unsent": ("home", PICTURE),
    "unsent/a-1.png": ("home/a-1.png", PICTURE),
    "images": ("home", PICTURE),
    "refused-a-1.png": ("home/a-1.png", PICTURE),
}


@pytest.mark.parametrize("name", SPOOLED)
def test_a_link_among_what_waits_leads_sync_nowhere(cli, here, store, tally, name):
    target, entry = SPOOLED[name]
    link = tracked(store, entry) / name
    before = outside(here)
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(here / target)
    answer = cli("sync")
    untouched(here, before)
    assert f"{link} is a link; links are refused" in answer.err.replace("\n", " ") and "Traceback" not in answer.err
    tally("link in a run's folder")


def test_a_run_with_a_link_does_not_keep_the_others_from_being_sent(cli, here, store):
    (tracked(store) / "x").symlink_to(here)
    tracked(store, ["metric", "val/loss", 1.0, 1, 5])
    assert "1 run sent" in cli("sync").out


@pytest.mark.parametrize("name", ["notes.txt", "recipe", "deep/in/it"])
def test_what_a_link_leads_to_is_not_sent_to_another_store(cli, here, store, empty_store, tally, name):
    (here / "other").mkdir()
    shutil.copy(empty_store, here / "other" / "mlflow.db")
    link = tracked(store, **{"aelab.offline": "yes"}) / name
    before = outside(here)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(here / "home" / ("" if name == "recipe" else "rc"))
    answer = cli("sync", "--tracking-uri", f"sqlite:///{here}/other/mlflow.db")
    untouched(here, before)
    assert answer.code == 1 and "links are refused" in answer.err
    tally("link in a run's folder")


LINKED = ("pictures", "checkpoints", "recipe", "config.json", ".", "..")


@pytest.mark.parametrize("name", LINKED)
def test_no_verb_reads_or_writes_a_run_that_leads_elsewhere(cli, here, theirs, tally, name):
    """The folder itself, the one that holds it, or something in it is a link to another run's."""
    assert cli("train", "linear", *DIGITS, "--max-steps", 2, "--name", "other").code == 0
    other = run_folder("other")
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    link = {".": theirs.folder, "..": theirs.folder.parent}.get(name, theirs.folder / name)
    target = {".": other, "..": other.parent}.get(name, other / name)
    target.mkdir(exist_ok=True) if name == "pictures" else None
    shutil.rmtree(link) if link.is_dir() else link.unlink(missing_ok=True)
    link.symlink_to(target)
    if name == "..":  # as in a run's own folder
        link.unlink()
        target.rename(here / theirs.folder.parent.name)
        link.symlink_to(here / theirs.folder.parent.name)
        before = {here / theirs.folder.parent.name / path.relative_to(other.parent): v for path, v in before.items()}
    for verb in ("eval", "sample", "export", "resume", "train --start"):
        answer = cli(*OPENERS[verb])
        assert {path: path.read_bytes() for path in before} == before and not (here / "out").exists(), verb
        assert not list(here.rglob("samples.png")), verb
        assert answer.code in (1, 2) and "is a link; links are refused" in answer.err.replace("\n", " "), answer.err
        assert len(answer.err.splitlines()) <= 3 and "Traceback" not in answer.err
        tally("link in a run's folder")


@pytest.mark.parametrize("name", ["config.json", "recipe/pipe", "checkpoints/last-00000002/manifest.json"])
def test_a_pipe_in_a_run_hangs_no_verb(cli, here, theirs, tally, name):
    """The kernel waits for a writer that never comes."""
    (theirs.folder / name).unlink(missing_ok=True)
    os.mkfifo(theirs.folder / name)
    for verb in ("eval", "sample", "export", "resume"):
        with in_time():
            answer = cli(*OPENERS[verb])
        assert answer.code == 1 and "neither a file nor a folder" in answer.err.replace("\n", " "), answer.err
    tally("pipe or device in place of a file")


@pytest.mark.parametrize("what", ["pipe", "device", "size"])
def test_only_small_regular_files_are_read_as_recipes_and_manifests(cli, here, tmp_path, tally, what):
    def put(path):
        path.unlink(missing_ok=True)
        if what == "pipe":
            os.mkfifo(path)
        elif what == "device":
            path.symlink_to("/dev/zero")
        else:
            with path.open("wb") as file:
                file.truncate(1 << 36)  # 64 GB of nothing

    why = "bytes; more than" if what == "size" else "no regular file"
    (here / "recipes").mkdir()
    put(here / "recipes" / "x.py")
    path = written(tmp_path / "a")
    put(path / "manifest.json")
    with in_time(), little_memory(1 << 28):
        answer = cli("recipes")
        with pytest.raises(UserError, match=why):
            checkpoint.load(path)
        assert not checkpoint._is_best(path)
        typed = cli("train", "x", *DIGITS)
    assert answer.code == 0 and "cannot read" in answer.out and "vae" in answer.out, answer.out
    assert typed.code == 2 and why in typed.err
    tally("pipe or device in place of a file")


@contextmanager
def in_time(seconds=60):
    """Raises TimeoutError in what hangs."""

    def late(*ignored):
        raise TimeoutError(f"it hangs: {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def altered(statement, *values):
    with closing(sqlite3.connect("mlflow.db")) as database:
        database.execute("PRAGMA foreign_keys = OFF")
        database.execute(statement, values)
        database.commit()


@pytest.mark.parametrize("place", ["http://127.0.0.1:9/a", "mlruns/aelab/{id}/artifacts", "{folder}"])
def test_a_database_does_not_choose_a_folder_by_an_id(cli, here, theirs, tally, place):
    """The id of a run is a text in a file that a stranger may have written."""
    run_id = "../../../../victim/trav2"
    old = theirs.folder.parent.name
    for table in ("params", "tags", "metrics", "latest_metrics"):
        altered(f"UPDATE {table} SET run_uuid = ? WHERE run_uuid = ?", run_id, old)
    uri = place.format(id=run_id, folder=theirs.folder)
    altered("UPDATE runs SET run_uuid = ?, artifact_uri = ? WHERE run_uuid = ?", run_id, uri, old)
    (here / "victim" / "trav2").mkdir(parents=True)
    for words in (("sample", "theirs"), ("eval", "theirs", "--plain"), ("resume", "theirs", "--epochs", 90)):
        answer = cli(*words)
        assert answer.code in (1, 2) and "MLflow's" in answer.err and "Traceback" not in answer.err, answer.err
    assert not list((here / "victim" / "trav2").iterdir()) and not (here / "cache" / "aelab" / "runs").exists()
    tally("run with an id that leads out")


def test_nor_is_the_folder_of_one_run_that_of_another(cli, here, theirs, tally):
    assert cli("train", "linear", *DIGITS, "--max-steps", 2, "--name", "other").code == 0
    other = run_folder("other")
    before = {path: path.read_bytes() for path in other.rglob("*") if path.is_file()}
    altered("UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?", other.as_uri(), theirs.folder.parent.name)
    answer = cli("resume", "theirs", "--epochs", 90)
    assert answer.code == 1 and "MLflow would not have chosen that folder" in answer.err
    assert {path: path.read_bytes() for path in other.rglob("*") if path.is_file()} == before
    tally("run in a folder that is none of MLflow's")


def test_an_export_holds_the_recipe_that_was_executed(cli, here, theirs, tally):
    """Not what lies in the run's folder: nobody has read that, and json.py is imported before Python's own."""
    evil(theirs.folder / "recipe" / "linear.py", theirs.marker)
    evil(theirs.folder / "recipe" / "json.py", theirs.marker)
    answer = cli("runs", "export", "theirs", "out")
    assert answer.code == 0, answer.err
    own = Path(__file__).parents[2] / "recipes" / "linear.py"
    assert [path.name for path in (here / "out").glob("*.py")] == ["linear.py"]
    assert (here / "out" / "linear.py").read_bytes() == own.read_bytes()
    sums = json.loads((here / "out" / "config.json").read_text())["recipe_sha256"]
    assert sums == hashlib.sha256(own.read_bytes()).hexdigest()
    tally("code in a run that is exported")


# An experiment's name becomes a folder


@pytest.fixture
def store(empty_store, here):
    shutil.copy(empty_store, here / "mlflow.db")
    return Store()


@pytest.mark.parametrize("how", ["typed", "environment"])
@pytest.mark.parametrize(
    "name", [".", "..", "...", "", " ", " .. ", "/tmp/x", "/", "a/b", "../x", "a\\b", "a\x1b[2J", "a\nb", "x" * 501]
)
def test_an_experiment_does_not_choose_a_folder(monkeypatch, store, tally, name, how):
    """Its runs would lie beside the database or above it, where `mlflow gc` deletes."""
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", name)
    if how == "environment" and not name:  # as if it were not set
        assert store.experiment(None)
        return
    with pytest.raises(UserError, match="experiment") as caught:
        store.experiment(name if how == "typed" else None)
    assert caught.value.code == 2
    assert [each.name for each in store.client.search_experiments()] == ["Default"]
    tally("experiment that chooses a folder")


def test_an_experiment_that_is_refused_costs_one_line(cli, store):
    for verb in (("train", "linear"), ("compare-latent", 2)):
        answer = cli(*verb, *DIGITS, "--max-steps", 1, "--experiment", "..")
        assert answer.code == 2 and len(answer.err.splitlines()) <= 2 and "experiment" in answer.err


def test_two_experiments_do_not_share_a_folder(here, store):
    names = ["a b", "a-b", "a  b", "a:b", "ä.b", "…", "-", "..a", "y" * 200, "y" * 201, "ü" * 300]
    places = [store.client.get_experiment(store.experiment(name)).artifact_location for name in names]
    folders = [Path(urllib.request.url2pathname(place.removeprefix("file://"))) for place in places]
    assert len(set(folders)) == len(names)
    assert folders[1] == here.resolve() / "mlruns" / "a-b"
    for folder in folders:
        assert folder.resolve().parent == here.resolve() / "mlruns"
        folder.mkdir(parents=True)


# The folder that aelab works in belongs to someone else


def git(*words, folder=None):
    named = ("-c", "user.name=x", "-c", "user.email=x@x", "-c", "commit.gpgsign=false")
    done = subprocess.run(["git", *named, *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(here):
    """A repository whose configuration executes whatever git can be made to execute by asking how things are."""
    git("init", "-q", "-b", "main")
    (here / "a.txt").write_text("a\n")
    git("add", "a.txt")
    git("commit", "-qm", "first")
    return git("rev-parse", "HEAD")


HOOKS = {
    "core.fsmonitor": ("core.fsmonitor", "{}"),
    "filter": ("filter.x.clean", "{}"),
    "process filter": ("filter.x.process", "{}"),
    "hook": ("core.hooksPath", "hooks"),
    "pager": ("core.pager", "{}"),
    "text conversion": ("diff.x.textconv", "{}"),
    "external diff": ("diff.x.command", "{}"),
    "alias": ("alias.rev-parse", "!{}"),
    "included": ("include.path", "../more"),
}


@pytest.mark.parametrize("key", HOOKS)
def test_the_configuration_of_git_does_not_execute(here, repository, tally, key):
    marker, script = here / "executed", here / "hooks" / "post-index-change"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch {marker}\n")
    script.chmod(0o755)
    (here / ".gitattributes").write_text("* filter=x diff=x\n")
    (here / "more").write_text(f"[core]\n\tfsmonitor = {script}\n")
    name, value = HOOKS[key]
    git("config", name, value.format(script))
    (here / "a.txt").write_text("b\n")
    assert origin()["mlflow.source.git.commit"] == repository
    assert not marker.exists()
    tally("git configuration that executes")


def test_the_commit_is_found_wherever_git_keeps_it(here, repository, monkeypatch):
    def commit():
        return origin().get("mlflow.source.git.commit")

    (here / "deep" / "er").mkdir(parents=True)
    monkeypatch.chdir(here / "deep" / "er")
    assert commit() == repository, "above the working folder"
    monkeypatch.chdir(here)
    git("pack-refs", "--all")
    assert not (here / ".git" / "refs" / "heads" / "main").exists()
    assert commit() == repository, "packed"
    (here / "a.txt").write_text("b\n")
    git("commit", "-qam", "second")
    second = git("rev-parse", "HEAD")
    assert commit() == second, "newer than what is packed"
    git("worktree", "add", "-q", "-b", "other", "tree", repository)
    monkeypatch.chdir(here / "tree")
    assert commit() == repository, "in a worktree"
    git("pack-refs", "--all")
    assert commit() == repository, "in a worktree, packed"
    monkeypatch.chdir(here)
    git("checkout", "-q", "--detach", repository)
    assert commit() == repository, "detached"
    git("checkout", "-q", "--orphan", "new")
    assert commit() is None, "no commit yet"


@pytest.mark.parametrize("head", ["fifo", "folder", "huge", "binary", "text", "out", "absolute", "missing", "loop"])
def test_a_head_that_is_none_is_no_commit(here, head, tally):
    path = here / ".git" / "HEAD"
    path.parent.mkdir()
    (here / "secret").write_text("c" * 40)
    if head == "fifo":
        os.mkfifo(path)
    elif head == "folder":
        path.mkdir()
    elif head == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    elif head == "loop":
        path.symlink_to(path)
    elif head != "missing":
        texts = {"binary": b"\xff\x00\xfe", "text": b"commit me\n", "out": b"ref: refs/../../secret\n"}
        path.write_bytes(texts.get(head) or f"ref: {here}/secret\n".encode())
    with little_memory(1 << 28):
        assert "mlflow.source.git.commit" not in origin()
    tally("HEAD that is none")


# What is shown on a terminal

NASTY = "a\x1b[2J\x1b]0;title\x07b\rc\x9b31md\u202ee\nerror: faked\x85f\u2028g\x7fh\ud800i"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def unharmed(answer):
    """Nothing that a terminal obeys, no line that a name made up, and no traceback."""
    for text in (answer.out, answer.err):
        assert not OBEYED.search(text), repr(OBEYED.search(text))
        assert not [line for line in text.splitlines() if line.startswith("error: faked")], text
    assert "Traceback" not in answer.err + answer.out
    return answer


@pytest.fixture(scope="module")
def storable():
    return NASTY.replace("\ud800", "")


def test_a_name_in_the_store_does_not_steer_the_terminal(cli, here, theirs, tally, storable):
    store = Store()
    info = store.find("theirs")
    store.client.update_run(info.id, name=storable)
    store.client.log_param(info.id, "p", storable)
    store.client.log_metric(info.id, "val/x", 1.0)
    for tag in ("health", "reason", "device", "version", "data"):
        store.client.set_tag(info.id, f"aelab.{tag}", storable)
    lines = (
        ("runs",), ("runs", "show", info.id), ("eval", info.id, "--plain"), ("sample", info.id), ("resume", info.id),
        ("compare",), ("compare", "--markdown"), ("compare", "--latex"), ("compare", "--group-by", "p"),
        ("compare", "--curve", "nothing"), ("interpolate", info.id, "--pairs", 1), ("runs", "export", info.id, "out"),
        ("runs", "register", info.id, "m"), ("runs", "rm", info.id),
    )  # fmt: skip
    for words in lines:
        answer = unharmed(cli(*words))
        assert answer.code in (0, 1, 2)
    tally("name in the store that steers the terminal")


def test_json_and_csv_hold_the_name_as_it_is(cli, here, theirs, storable):
    store = Store()
    info = store.find("theirs")
    store.client.update_run(info.id, name=storable)
    answer = unharmed(cli("runs", "--json"))
    assert answer.json["runs"][0]["name"] == storable
    assert unharmed(cli("runs", "show", info.id, "--json")).json["name"] == storable


@pytest.mark.parametrize("words", [("train", NASTY), ("eval", NASTY), ("train", "linear", "--data", NASTY),
                                   ("train", "linear", "--lr", NASTY), ("runs", "--filter", NASTY), (NASTY,),
                                   ("eval", "x", NASTY), ("data", "--fetch", NASTY), ("train", "linear", f"--{NASTY}"),
                                   ("train", f"{NASTY}.py"), ("compare", "--out", NASTY)])  # fmt: skip
def test_nor_does_what_was_typed(cli, here, store, words, tally):
    answer = unharmed(cli(*words))
    assert answer.code == 2
    tally("what is typed steers the terminal")


def test_nor_do_names_of_files_folders_and_classes(cli, here, store, tally, storable):
    name = storable.replace("/", "").encode()
    for number in range(12):
        folder = here / "album" / os.fsdecode(name + b"\xff" if number % 2 else b"plain")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number}.png").write_bytes(png(8, 8))
    unharmed(cli("train", "linear", "--data", "album", "--max-steps", 2, "--name", "x"))
    unharmed(cli("eval", "x"))
    (folder / f"{storable}.png").write_bytes(b"no picture")
    answer = unharmed(cli("train", "linear", "--data", "album", "--max-steps", 2))
    assert answer.code == 1 and "cannot be read as a picture" in answer.err
    unharmed(cli("train", "linear", "--data", folder, "--max-steps", 2))
    (here / "recipes").mkdir()
    (here / "recipes" / f"{storable}.py").write_text("x = 1\n")
    (here / "recipes" / "mine.py").write_text(f'"""{storable}"""\nraise ValueError({storable!r})\n')
    for words in (("recipes",), ("train", "--help"), ("train", "mine"), ("train", "nothing"), ("recipes", "--json")):
        unharmed(cli(*words))
    tally("file name that steers the terminal")


def everything(folder):
    """All bytes below a folder; SQLite's too."""
    return b"\0".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_secret_of_the_environment_or_the_address_appears_nowhere(aelab, here, server, tally):
    secrets = dict.fromkeys(("AWS_SECRET_ACCESS_KEY", "MY_PASSWORD", "HF_TOKEN"), CANARY)
    aelab.run(*WORDS, "--name", "local", MLFLOW_TRACKING_URI=f"sqlite:///{here}/mlflow.db", **secrets)
    uri = server.url.replace("//", f"//user:{CANARY}@")
    outputs = [aelab.run(*WORDS, "--name", "far", MLFLOW_TRACKING_URI=uri, **secrets)]
    outputs += [aelab.run("runs", MLFLOW_TRACKING_URI=uri), aelab.run("eval", "far", MLFLOW_TRACKING_URI=uri)]
    outputs.append(aelab.run("runs", MLFLOW_TRACKING_URI=f"http://user:{CANARY}@127.0.0.1:9", code=1))
    outputs.append(aelab.run("runs", MLFLOW_TRACKING_URI=f"postgresql://user:{CANARY}@127.0.0.1:9/db", code=1))
    outputs.append(aelab.run("runs", MLFLOW_TRACKING_URI=f"postgresql://127.0.0.1:9/db?password={CANARY}", code=1))
    fault = """
def broken(*a):
    raise RuntimeError('at ' + os.environ['MLFLOW_TRACKING_URI'])
aelab.workflows.planning.Plan.build = broken
"""
    outputs.append(aelab.run(*WORDS, MLFLOW_TRACKING_URI=uri, patch=fault, code=1))
    assert "Traceback" in outputs[-1].err
    slow = """
real = aelab.training.trainer.Trainer.step
aelab.training.trainer.Trainer.step = lambda *a: (time.sleep(0.01), real(*a))[1]
"""
    process = aelab.start("train", "linear", *DIGITS, "--epochs", 400, patch=slow, MLFLOW_TRACKING_URI=uri)
    until(lambda: list(here.glob("cache/aelab/runs/*/unsent.jsonl")), process=process)
    server.stop()
    until(lambda: "does not answer" in process.err, process=process)
    process.kill(signal.SIGTERM)
    assert process.wait() == 143
    outputs.append(process)
    for each in outputs:
        assert CANARY not in each.stdout + each.err
    assert "local" in run_folder("local", Store(f"sqlite:///{here}/mlflow.db")).joinpath("README.md").read_text()
    assert CANARY.encode() not in everything(here)
    tally("secret in the environment and in the address")


@pytest.mark.parametrize(
    "text",
    [f"http://user:{CANARY}@host/x", f"postgresql://u:{CANARY}@h/db?x=1", f"x?password={CANARY}&y", f"https://{CANARY}@host",
     f"mysql+pymysql://u:p@ss{CANARY}@h", f"TOKEN={CANARY}"],
)  # fmt: skip
def test_passwords_are_taken_out(text):
    assert CANARY not in redacted(f"cannot open {text}: no") and redacted(text).endswith(("", "no"))


def test_the_pages_are_served_on_this_machine_alone(aelab, here, tally):
    aelab.run(*WORDS)
    port = free_port()
    with served(Store(), port):
        hexed = f"{port:04X}"
        rows = [
            line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        ]
        bound = {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[1].endswith(":" + hexed)}
        assert bound <= {"0100007F"}, "127.0.0.1"
        with socket.socket() as probe:
            probe.settimeout(2)
            assert probe.connect_ex(("127.0.0.2", port)) != 0
    tally("server on another address")


def test_nothing_that_is_shipped_loads_a_pickle_or_binds_everywhere():
    root = Path(__file__).parents[2]
    for path in [*root.glob("aelab/**/*.py"), *root.glob("recipes/*.py")]:
        text = path.read_text()
        assert not re.search(r"pickle\.load|weights_only=False|0\.0\.0\.0|shell=True|(?<![.\w])(eval|exec)\(", text), (
            path
        )


def test_the_lock_has_a_hash_for_every_package():
    text = Path(__file__).parents[2].joinpath("requirements.lock").read_text().replace("\\\n", " ")
    packages = [line for line in text.splitlines() if re.match(r"[a-zA-Z0-9]", line)]
    assert len(packages) > 50 and all("--hash=sha256:" in line for line in packages)
    assert "://" not in text


def test_a_matplotlibrc_of_the_working_folder_starts_no_latex(tmp_path):
    marker, latex = tmp_path / "started", tmp_path / "bin" / "latex"
    latex.parent.mkdir()
    latex.write_text(f"#!/bin/sh\ntouch {marker}\n")
    latex.chmod(0o755)
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\n")
    code = "from pathlib import Path\nfrom aelab.figures import bars, save\nsave(Path('a.png'), bars({'$x_{$': 1.0}, 'share'))"
    usual = "from matplotlib.figure import Figure\nFigure().suptitle('a').figure.savefig('b.png')"
    path = os.pathsep.join([str(latex.parent), os.environ["PATH"]])
    for text, started in ((code, False), (usual, True)):
        environment = {**os.environ, "PATH": path}
        words = [sys.executable, "-c", text]
        done = subprocess.run(words, check=False, cwd=tmp_path, env=environment, stderr=subprocess.PIPE)
        assert marker.exists() is started, done.stderr.decode()[-500:]
    assert (tmp_path / "a.png").exists()
