import contextvars
import gzip
import hashlib
import importlib
import io
import socket
import struct
import tarfile
import threading
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from aelab.data.catalog import BUNDLED, DOWNLOADABLE, Raw
from aelab.data.dataset import Split, split
from aelab.data.download import Offline, Remote, fetch
from aelab.data.opening import directories, listing, obtain, open_data
from aelab.data.readers import read_idx, read_lfw
from aelab.errors import UserError
from aelab.progress_bar import show_with

REFUSED = "http://127.0.0.1:1/"  # nobody listens on port 1


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No proxy, no data set of this machine."""
    for name in ("AELAB_DATA", "http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path / "cache"))


# what the tests read


def idx(array):
    return struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def numbered(count, size=6):
    """Images that tell their number: no two are alike."""
    images = np.zeros((count, size, size), np.uint8)
    images[:, 0, 0], images[:, 0, 1] = np.arange(count) // 256, np.arange(count) % 256
    return images


TRAIN, TEST = numbered(131), 255 - numbered(40)
TRAIN_LABELS, TEST_LABELS = (np.arange(n, dtype=np.uint8) % 10 for n in (131, 40))


class Mnist:
    """A tiny MNIST with digests of its own: the entry, and its files by name."""

    def __init__(self, mirror=REFUSED):
        real = DOWNLOADABLE["mnist"]
        plain = dict(zip((f.name.removesuffix(".gz") for f in real.files),
                         map(idx, (TRAIN, TRAIN_LABELS, TEST, TEST_LABELS)), strict=True))  # fmt: skip
        self.plain = plain
        self.zipped = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in plain.items()}
        remotes = [Remote(name, len(c), hashlib.sha256(c).hexdigest(), (mirror,)) for name, c in self.zipped.items()]
        unpacked = {name: hashlib.sha256(content).hexdigest() for name, content in plain.items()}
        self.entry = replace(real, files=remotes, unpacked=unpacked)

    def put(self, directory, zipped=True):
        folder = directory / self.entry.folder
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (self.zipped if zipped else self.plain).items():
            (folder / name).write_bytes(content)
        return folder


@pytest.fixture
def mnist(monkeypatch):
    tiny = Mnist()
    monkeypatch.setitem(DOWNLOADABLE, "mnist", tiny.entry)
    return tiny


@cache
def bundled(name):
    return BUNDLED[name]()


def contents(*parts):
    """How often each pair of image and label occurs."""
    return Counter(
        (x.numpy().tobytes(), int(y)) for images, labels in parts for x, y in zip(images, labels, strict=True)
    )


def parts(data):
    return [(part.images, part.labels) for part in (data.train, data.val, data.test)]


# splits


@pytest.mark.parametrize("name", ["mnist-5k", "digits"])
def test_split_is_a_stratified_partition(name):
    raw = bundled(name)
    data = split(name, raw, 0, "")
    assert contents(*parts(data)) == contents(raw.train)
    total = len(raw.train[0])
    assert len(data.test) == round(total / 5)
    assert len(data.val) == round((total - len(data.test)) / 12)
    every, test, val = (torch.bincount(y, minlength=10) for y in (raw.train[1], data.test.labels, data.val.labels))
    assert (test - every / 5).abs().max() < 1
    assert (val - (every - test) / 12).abs().max() < 1


@pytest.mark.parametrize("count", [5, 7, 23, 100, 1001])
@pytest.mark.parametrize("classes", [1, 3, 7])
def test_split_of_any_size_is_disjoint(count, classes):
    images = torch.from_numpy(numbered(count)).unsqueeze(1)
    labels = torch.arange(count) % classes
    data = split("x", Raw((images, labels), None, (), ""), 3, "")
    assert contents(*parts(data)) == contents((images, labels))
    assert min(map(len, (data.train, data.val, data.test))) >= 1


def test_split_depends_on_its_seed_alone():
    once, torch_seed = split("digits", bundled("digits"), 4, ""), torch.manual_seed(99)
    np.random.seed(1)
    again, other = split("digits", bundled("digits"), 4, ""), split("digits", bundled("digits"), 5, "")
    assert torch_seed.initial_seed() == 99
    for (x, y), (again_x, again_y) in zip(parts(once), parts(again), strict=True):
        assert torch.equal(x, again_x) and torch.equal(y, again_y)
    assert contents(parts(once)[2]) != contents(parts(other)[2])
    assert once.fingerprint == again.fingerprint != other.fingerprint


def test_too_few_images_are_refused():
    with pytest.raises(UserError, match="too few"):
        split("x", Raw((torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.zeros(3)), None, (), ""), 0, "")


def test_official_test_set_is_kept(mnist, tmp_path):
    mnist.put(tmp_path)
    for seed in (0, 1):
        data = open_data("mnist", data_dir=tmp_path, split_seed=seed)
        assert np.array_equal(data.test.images[:, 0].numpy(), TEST)
        assert np.array_equal(data.test.labels.numpy(), TEST_LABELS)
        train, val, _ = parts(data)
        images = torch.from_numpy(TRAIN).unsqueeze(1)
        assert contents(train, val) == contents((images, torch.from_numpy(TRAIN_LABELS).long()))
        assert len(data.val) == round(131 / 12)
    assert data.image == (1, 6, 6)


@pytest.mark.parametrize("part", ["train", "val", "test"])
@pytest.mark.parametrize("change", ["pixel", "label"])
def test_fingerprint_sees_one_change_in_any_part(part, change):
    def pairs():
        return {
            name: (torch.full((9, 1, 3, 3), 7, dtype=torch.uint8), torch.arange(9)) for name in ("train", "val", "test")
        }

    first, second = pairs(), pairs()
    if change == "pixel":
        second[part][0][4, 0, 1, 1] += 1
    else:
        second[part][1][4] += 1
    prints = [split("x", Raw(classes=(), place="", **some), 0, "").fingerprint for some in (first, pairs(), second)]
    assert prints[0] == prints[1] != prints[2]


def test_batches_are_floats_from_zero_to_one():
    images = torch.arange(256, dtype=torch.uint8).reshape(16, 1, 4, 4)
    some = Split(images, torch.arange(16))
    x, y = some.batch(torch.tensor([15, 0]))
    assert x.dtype == torch.float32 and x.shape == (2, 1, 4, 4)
    assert (x.min(), x.max()) == (0.0, 1.0)
    assert torch.equal((x * 255).round().to(torch.uint8), images[[15, 0]])
    assert y.tolist() == [15, 0]
    assert torch.equal(torch.cat([block for block, _ in some.blocks(5)]), images.float() / 255)


def test_order_depends_on_seed_and_position_only():
    some = Split(torch.zeros(500, 1, 1, 1, dtype=torch.uint8), torch.zeros(500))
    orders = {}
    for where in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (1, 0, 1)):
        before = torch.get_rng_state()
        orders[where] = tuple(some.shuffled(*where).tolist())
        assert torch.equal(torch.get_rng_state(), before)  # it draws nothing from the training's own noise
        torch.rand(3)
        assert tuple(some.shuffled(*where).tolist()) == orders[where]
        assert sorted(orders[where]) == list(range(500))
    assert len(set(orders.values())) == len(orders)


# where sets are looked for


def test_named_set_is_never_replaced(mnist, tmp_path):
    with pytest.raises(Offline) as caught:
        open_data("mnist", data_dir=tmp_path / "here")
    assert str(tmp_path / "here" / "MNIST/raw") in str(caught.value)
    assert "mnist-5k" in str(caught.value)
    assert not list((tmp_path / "here").rglob("*.part"))


def test_auto_falls_back_with_a_note(mnist, tmp_path, monkeypatch):
    monkeypatch.setitem(BUNDLED, "mnist-5k", lambda: bundled("mnist-5k"))
    data = open_data("auto", data_dir=tmp_path)
    assert data.name == "mnist-5k" and "5,000" in data.note
    mnist.put(tmp_path)
    data = open_data("auto", data_dir=tmp_path)
    assert data.name == "mnist" and data.note == "" and len(data.test) == 40


def test_auto_does_not_hide_altered_files(mnist, tmp_path):
    raw = mnist.put(tmp_path)
    (raw / mnist.entry.files[0].name).write_bytes(b"rubbish")
    with pytest.raises(UserError, match="altered"):
        open_data("auto", data_dir=tmp_path)


def test_places_are_searched_in_order(mnist, tmp_path, monkeypatch):
    named, variable, cached = tmp_path / "named", tmp_path / "variable", tmp_path / "cache/data"
    monkeypatch.setenv("AELAB_DATA", str(variable))
    folders = [mnist.put(place) for place in (named, variable, cached)]
    assert open_data("mnist", data_dir=named).place == str(folders[0])
    assert open_data("mnist").place == str(folders[1])
    (folders[1] / mnist.entry.files[2].name).unlink()  # a set that is not whole counts for nothing
    assert open_data("mnist").place == str(folders[2])
    assert open_data("mnist", data_dir=tmp_path / "empty").place == str(folders[2])
    monkeypatch.setenv("AELAB_DATA", "")
    assert directories(None) == [cached]


def test_listing_says_what_is_here(mnist, tmp_path):
    assert {row["data"]: row["here"] for row in listing(tmp_path)}["mnist"] == "no"
    folder = mnist.put(tmp_path)
    row = next(row for row in listing(tmp_path) if row["data"] == "mnist")
    assert row["here"] == "yes" and row["where"] == str(folder)


def test_unknown_name_gets_the_nearest():
    with pytest.raises(UserError, match="Did you mean mnist-5k") as caught:
        open_data("mnist5k")
    assert caught.value.code == 2


def test_image_size_is_for_folders():
    with pytest.raises(UserError, match="--image-size is for folders"):
        open_data("digits", image_size=32)
    assert open_data("digits", image_size=8).image == (1, 8, 8)


# IDX files


def test_plain_and_zipped_idx_are_the_same(mnist, tmp_path):
    for folder, zipped in (("a", True), ("b", False)):
        mnist.put(tmp_path / folder, zipped)
    one, two = (open_data("mnist", data_dir=tmp_path / folder) for folder in ("a", "b"))
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty"])
@pytest.mark.parametrize("number", range(4))
def test_damaged_file_is_named(mnist, tmp_path, zipped, damage, number):
    path = sorted(mnist.put(tmp_path, zipped).iterdir())[number]
    content = bytearray(path.read_bytes())
    if damage == "altered":
        content[-20] ^= 1
    path.write_bytes({"truncated": content[:-7], "altered": content, "empty": b""}[damage])
    with pytest.raises(UserError, match="altered") as caught:
        open_data("mnist", data_dir=tmp_path)
    assert str(path) in str(caught.value)


def write_idx(path, content):
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


@pytest.mark.parametrize("name", ["images", "images.gz"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        idx(TRAIN)[:-1],
        idx(TRAIN) + b"\0",
        b"\0\0\x0d" + idx(TRAIN)[3:],  # floats
        b"\1" + idx(TRAIN)[1:],
        struct.pack(">HBB3I", 0, 8, 3, 4000, 1000, 1000) + bytes(100),  # promises 4 GB
        struct.pack(">HBB3I", 0, 8, 3, 1 << 31, 1 << 31, 1 << 31) + bytes(100),
        struct.pack(">HBB", 0, 8, 255) + b"\xff" * 1020,
    ],
    ids=["empty", "header", "short", "long", "float", "magic", "gigabytes", "exabytes", "255 dimensions"],
)
def test_idx_that_lies_is_refused_quickly(tmp_path, name, content):
    path = write_idx(tmp_path / name, content)
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["images", "images.gz"])
def test_idx_reads_what_was_written(tmp_path, name):
    assert np.array_equal(read_idx(write_idx(tmp_path / name, idx(TRAIN))).numpy(), TRAIN)


def test_damaged_gzip_stream_is_a_problem(tmp_path):
    content = bytearray(gzip.compress(idx(TRAIN), mtime=0))
    content[10] ^= 0x55  # the first byte after gzip's header: another type of block
    (tmp_path / "images.gz").write_bytes(content)
    with pytest.raises(UserError):
        read_idx(tmp_path / "images.gz")


def test_idx_without_dimensions_is_a_problem(tmp_path):
    paths = [write_idx(tmp_path / str(k), idx(x)) for k, x in enumerate((np.uint8(3), TRAIN_LABELS, TEST, TEST_LABELS))]
    with pytest.raises(UserError):
        DOWNLOADABLE["mnist"].read(paths, 0)


def test_images_and_labels_must_fit(tmp_path):
    some = (TRAIN, TRAIN_LABELS[:-1], TEST, TEST_LABELS)
    paths = [write_idx(tmp_path / str(k), idx(x)) for k, x in enumerate(some)]
    with pytest.raises(UserError, match=r"131.*130"):
        DOWNLOADABLE["mnist"].read(paths, 0)


# downloads


class Shelf:
    """A web server on this machine: what it serves, how badly, and what it was asked."""

    def __init__(self):
        self.files, self.asked = {}, []
        self.ranges = True
        self.breaks = []  # after so many bytes the next answers break off
        shelf = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                shelf.asked.append((self.path, wanted))
                content = shelf.files.get(self.path.lstrip("/"))
                if content is None:
                    self.send_error(404)
                    return
                if isinstance(content, list):  # the answer itself, byte by byte
                    self.wfile.write(content[0])
                    return
                start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and shelf.ranges else 0
                self.send_response(206 if start else 200)
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                self.send_header("Content-Length", str(len(content) - start))
                self.end_headers()
                body = content[start:]
                self.wfile.write(body[: shelf.breaks.pop(0)] if shelf.breaks else body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def shelf():
    shelf = Shelf()
    yield shelf
    shelf.close()


CONTENT = bytes(np.random.default_rng(0).integers(0, 256, 700_000, dtype=np.uint8))  # some blocks long


def remote(*mirrors, content=CONTENT):
    return Remote("some.bin", len(content), hashlib.sha256(content).hexdigest(), mirrors)


def told_by(work):
    """What a display is told while `work` runs: titles with totals, and how much was done."""
    opened, told = [], []

    class Told:
        visible = True

        def update(self, done, title=None, text=None):
            told.append(done)

    @contextmanager
    def display(title, total, done, lines):
        opened.append((title, total))
        yield Told()

    contextvars.copy_context().run(lambda: (show_with(display), work()))
    return opened, told


def test_fetch_writes_the_file_and_tells_how_far_it_is(shelf, tmp_path):
    shelf.files["some.bin"] = CONTENT
    opened, done = told_by(lambda: fetch(remote(shelf.url), tmp_path / "new/folder"))
    path = tmp_path / "new/folder/some.bin"
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["some.bin"]
    assert opened == [("some.bin", len(CONTENT))]
    assert done == sorted(set(done)) and len(done) > 1 and done[-1] == len(CONTENT)


@pytest.mark.parametrize("ranges", [True, False])
def test_fetch_goes_on_from_what_is_there(shelf, tmp_path, ranges):
    shelf.files["some.bin"], shelf.ranges, shelf.breaks = CONTENT, ranges, [300_000]
    with pytest.raises(Offline, match="broke off after 300000"):
        fetch(remote(shelf.url), tmp_path)
    assert (tmp_path / "some.bin.part").read_bytes() == CONTENT[:300_000]
    assert not (tmp_path / "some.bin").exists()
    assert fetch(remote(shelf.url), tmp_path).read_bytes() == CONTENT
    assert shelf.asked == [("/some.bin", None), ("/some.bin", "bytes=300000-")]
    assert not (tmp_path / "some.bin.part").exists()


@pytest.mark.parametrize("length", [len(CONTENT), len(CONTENT) + 5])
def test_rubbish_as_long_as_the_file_is_not_gone_on_from(shelf, tmp_path, length):
    shelf.files["some.bin"] = CONTENT
    (tmp_path / "some.bin.part").write_bytes(bytes(length))
    assert fetch(remote(shelf.url), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", [CONTENT[:-1] + b"?", CONTENT + b"?"], ids=["altered", "longer"])
def test_another_file_than_promised(shelf, tmp_path, wrong):
    shelf.files["some.bin"] = wrong
    if len(wrong) > len(CONTENT):  # not a byte more than promised is taken
        assert fetch(remote(shelf.url), tmp_path).read_bytes() == CONTENT
        return
    with pytest.raises(UserError, match="sha256 differs"):
        fetch(remote(shelf.url), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_refused_connection_is_offline(tmp_path):
    with pytest.raises(Offline, match="refused"):
        fetch(remote(REFUSED), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


def test_next_mirror_takes_over(shelf, tmp_path):
    shelf.files["good/some.bin"] = CONTENT
    mirrors = (REFUSED, shelf.url + "missing/", shelf.url + "good/")
    assert fetch(remote(*mirrors), tmp_path).read_bytes() == CONTENT
    shelf.files["bad/some.bin"] = bytes(len(CONTENT))
    (tmp_path / "some.bin").unlink()
    assert fetch(remote(shelf.url + "bad/", shelf.url + "good/"), tmp_path).read_bytes() == CONTENT


def test_login_page_of_one_mirror_does_not_hinder_the_next(shelf, tmp_path):
    shelf.files["portal/some.bin"] = b"<html>Please log in to the network.</html>"
    shelf.files["good/some.bin"] = CONTENT
    assert fetch(remote(shelf.url + "portal/", shelf.url + "good/"), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", b"SSH-2.0-OpenSSH_9.6\r\n"],
    ids=["broken chunk", "not HTTP"],
)
def test_answer_that_is_no_answer_is_offline(shelf, tmp_path, answer):
    shelf.files["some.bin"] = [answer]
    with pytest.raises(Offline):
        fetch(remote(shelf.url), tmp_path)


def test_two_downloads_of_one_file_at_once(shelf, tmp_path):
    shelf.files["some.bin"] = CONTENT
    halfway, other_is_done = threading.Event(), threading.Event()

    class Slow:
        visible = True

        def update(self, done, title=None, text=None):
            halfway.set()
            other_is_done.wait(0.5)  # a download that waits for this one instead is right too

    def slowly():
        show_with(lambda *_: nullcontext(Slow()))
        return fetch(remote(shelf.url), tmp_path)

    with ThreadPoolExecutor() as pool:
        first = pool.submit(slowly)
        assert halfway.wait(5)
        second = pool.submit(fetch, remote(shelf.url), tmp_path)
        second.add_done_callback(lambda _: other_is_done.set())
        for future in (second, first):
            assert future.result(20).read_bytes() == CONTENT


def test_silent_mirror_is_given_up(tmp_path, monkeypatch):
    module = importlib.import_module("aelab.data.download")  # the package's attribute of this name is the function
    monkeypatch.setattr(module, "TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(Offline, match="timed out"):
        fetch(remote(f"http://127.0.0.1:{deaf.getsockname()[1]}/"), tmp_path)


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot write") as caught:
        fetch(remote(REFUSED), tmp_path / "file")
    assert not isinstance(caught.value, Offline)


def test_named_set_is_fetched_once_and_only_what_is_missing(shelf, tmp_path):
    tiny = Mnist(shelf.url)
    shelf.files = dict(tiny.zipped)
    folder = tmp_path / tiny.entry.folder
    folder.mkdir(parents=True)
    first = tiny.entry.files[0].name
    (folder / first).write_bytes(tiny.zipped[first])
    raw = obtain(tiny.entry, tmp_path)
    assert len(raw.test[0]) == 40
    assert [path.lstrip("/") for path, _ in shelf.asked] == [f.name for f in tiny.entry.files[1:]]
    obtain(tiny.entry, tmp_path)
    assert len(shelf.asked) == 3


# faces


class Faces:
    """A tiny archive in the form of LFW's: `counts` pictures of each person, whose face alone is of the person's grey."""

    def __init__(self, mirror=REFUSED, counts=(3, 1, 2, 1, 2, 1, 4, 1, 1, 2)):
        self.greys = {f"Person_{k}": 20 * k for k in range(len(counts))}
        written = io.BytesIO()
        with tarfile.open(fileobj=written, mode="w:gz") as archive:

            def put(name, content):
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))

            put("lfw_funneled/pairs_01.txt", b"not a picture")
            for (person, grey), count in reversed(list(zip(self.greys.items(), counts, strict=True))):
                for number in range(count):
                    picture = np.full((250, 250, 3), 255, np.uint8)
                    picture[70:195, 78:172] = (grey, 10 * number, 128)  # what scikit-learn cuts out
                    file = io.BytesIO()
                    Image.fromarray(picture).save(file, "JPEG", quality=100, subsampling=0)
                    put(f"lfw_funneled/{person}/{person}_{number + 1:04}.jpg", file.getvalue())
        self.content = written.getvalue()
        digest = hashlib.sha256(self.content).hexdigest()
        real = DOWNLOADABLE["lfw"]
        self.entry = replace(real, files=[Remote(real.files[0].name, len(self.content), digest, (mirror,))])


def test_listing_says_how_faces_are_fetched(tmp_path):
    row = next(row for row in listing(tmp_path) if row["data"] == "lfw")
    assert row["here"] == "no" and row["where"] == "aelab data --fetch lfw (243 MB)"


def test_faces_are_fetched_from_an_address_without_their_name(shelf, tmp_path, monkeypatch):
    faces = Faces(shelf.url + "files/5976015")
    shelf.files = {"files/5976015": faces.content}
    monkeypatch.setitem(DOWNLOADABLE, "lfw", faces.entry)
    data = open_data("lfw", data_dir=tmp_path)
    assert (tmp_path / "lfw/lfw-funneled.tgz").read_bytes() == faces.content
    assert [path for path, _ in shelf.asked] == ["/files/5976015"]
    assert data.image == (3, 64, 64) and data.classes == ()
    assert sum(map(len, (data.train, data.val, data.test))) == 18
    assert open_data("lfw", data_dir=tmp_path).fingerprint == data.fingerprint
    assert len(shelf.asked) == 1
    assert next(row for row in listing(tmp_path) if row["data"] == "lfw")["here"] == "yes"


def test_a_face_is_cut_out_and_made_square(tmp_path, monkeypatch):
    """A picture is white around the face: nothing of that is left, and the three colours stay apart."""
    faces = Faces()
    monkeypatch.setitem(DOWNLOADABLE, "lfw", faces.entry)
    (tmp_path / "lfw").mkdir()
    (tmp_path / "lfw/lfw-funneled.tgz").write_bytes(faces.content)
    data = open_data("lfw", data_dir=tmp_path, image_size=16)
    assert data.image == (3, 16, 16)
    images = every_image(data)[:, :, 2:-2, 2:-2].float()  # JPEG's ringing ends before
    assert images.flatten(2).std(2).max() < 3
    assert {round(float(x) / 20) * 20 for x in images[:, 0].flatten(1).mean(1)} == set(faces.greys.values())
    assert {round(float(x) / 10) * 10 for x in images[:, 1].flatten(1).mean(1)} == {0, 10, 20, 30}
    assert all(abs(float(x) - 128) < 4 for x in images[:, 2].flatten(1).mean(1))
    assert every_image(data).float().mean((0, 2, 3)).max() < 140, "white would be 255"


def test_nobody_is_in_both_the_training_and_the_test_images(tmp_path, monkeypatch):
    faces = Faces()
    monkeypatch.setitem(DOWNLOADABLE, "lfw", faces.entry)
    (tmp_path / "lfw").mkdir()
    (tmp_path / "lfw/lfw-funneled.tgz").write_bytes(faces.content)
    for seed in (0, 1):
        data = open_data("lfw", data_dir=tmp_path, split_seed=seed)
        persons = [{round(float(x) / 20) for x in part.images[:, 0].float().mean((1, 2))} for part in
                   (data.train, data.val, data.test)]  # fmt: skip
        assert persons[2] == {4, 9} and not persons[2] & (persons[0] | persons[1])


def test_the_middle_of_a_face_is_what_scikit_learn_shows(tmp_path, monkeypatch):
    """Its 125 x 94 pixels, of which the middle 94 x 94 are kept at their size."""
    from sklearn.datasets import _lfw

    path = tmp_path / "lfw_funneled/A_B/A_B_0001.jpg"
    rows, columns = np.mgrid[0:250, 0:250]
    picture(path, np.stack([rows, columns, (rows + columns) // 2], 2).astype(np.uint8))
    with tarfile.open(tmp_path / "some.tgz", "w:gz") as archive:
        archive.add(path, "lfw_funneled/A_B/A_B_0001.jpg")
    (ours,), _ = read_lfw(tmp_path / "some.tgz", 94)
    theirs = 255 * _lfw._load_imgs([str(path)], (slice(70, 195), slice(78, 172)), True, None)[0]
    assert np.abs(ours.numpy().transpose(1, 2, 0) - (theirs[15:109] + theirs[16:110]) / 2).max() <= 2


# folders of pictures


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def every_image(data):
    return torch.cat([images for images, _ in parts(data)])


def same_pixels(data, arrays):
    """Whether a data set holds these images (H, W, C), in any order."""
    expected = sorted(np.atleast_3d(array).transpose(2, 0, 1).tobytes() for array in arrays)
    return sorted(x.numpy().tobytes() for x in every_image(data)) == expected


def test_flat_folder(tmp_path):
    arrays = [noise(9, 7, seed=k) for k in range(12)]
    for k, array in enumerate(arrays):
        picture(tmp_path / f"{k}.{('png', 'bmp', 'PNG')[k % 3]}", array)
    picture(tmp_path / ".hidden.png", noise(3, 3))
    picture(tmp_path / ".cache/thumb.png", noise(3, 3))
    (tmp_path / "notes.txt").write_text("not a picture")
    data = open_data(str(tmp_path))
    assert data.image == (3, 9, 7)
    assert same_pixels(data, arrays)
    assert data.classes == () and set(data.train.labels.tolist()) == {-1}


def test_class_folders_label_their_pictures(tmp_path):
    for k in range(20):
        name = ("Äpfel und Birnen", "zebra")[k % 2]
        picture(tmp_path / name / f"bild {k} ß 猫.png", np.full((5, 5), 100 * (k % 2) + k, np.uint8))
    data = open_data(str(tmp_path))
    assert data.classes == ("zebra", "Äpfel und Birnen")
    assert data.image == (1, 5, 5)
    for images, labels in parts(data):
        assert torch.equal(labels, (images[:, 0, 0, 0] < 100).long())
        assert len(images)
    assert len(data.test) == 4
    assert set(data.test.labels.tolist()) == {0, 1}


def test_train_and_test_folders_set_the_split(tmp_path):
    for k in range(24):
        picture(tmp_path / "train" / "ab"[k % 2] / f"{k}.png", np.full((4, 4), k, np.uint8))
    for k in range(5):
        picture(tmp_path / "test" / "ab"[k % 2] / f"{k}.png", np.full((4, 4), 200 + k, np.uint8))
    data = open_data(str(tmp_path), split_seed=7)
    assert sorted(data.test.images[:, 0, 0, 0].tolist()) == [200, 201, 202, 203, 204]
    assert len(data.val) == 2 and len(data.train) == 22
    assert data.classes == ("a", "b")
    assert torch.equal(data.train.labels, data.train.images[:, 0, 0, 0] % 2)
    for k in range(3):
        picture(tmp_path / "val" / "a" / f"{k}.png", np.full((4, 4), 100 + k, np.uint8))
    data = open_data(str(tmp_path))
    assert sorted(data.val.images[:, 0, 0, 0].tolist()) == [100, 101, 102]
    assert len(data.train) == 24


def test_one_coloured_picture_makes_all_of_them_so(tmp_path):
    arrays = [noise(5, 5, 1, seed=k) for k in range(9)]
    for k, array in enumerate(arrays):
        picture(tmp_path / f"{k}.png", array)
    assert open_data(str(tmp_path)).image == (1, 5, 5)
    colour = noise(5, 5, 3)
    picture(tmp_path / "z.png", colour)
    data = open_data(str(tmp_path))
    assert data.image == (3, 5, 5)
    assert same_pixels(data, [colour, *(np.stack([array] * 3, 2) for array in arrays)])


def test_mixed_sizes_need_an_image_size(tmp_path):
    for k in range(8):
        picture(tmp_path / f"{k}.png", noise(10, 10))
    picture(tmp_path / "wide one.png", noise(10, 14))
    with pytest.raises(UserError, match=r"wide one\.png is 14 x 10") as caught:
        open_data(str(tmp_path))
    assert "--image-size" in str(caught.value) and caught.value.code == 2
    assert open_data(str(tmp_path), image_size=6).image == (3, 6, 6)


def test_image_size_cuts_the_middle_out(tmp_path):
    array = np.zeros((8, 24), np.uint8)
    array[:, 8:16] = 255
    for k in range(6):
        picture(tmp_path / f"{k}.png", array)
    assert (every_image(open_data(str(tmp_path), image_size=8)) == 255).all()


@pytest.mark.parametrize("damage", ["text", "truncated", "empty"])
def test_unreadable_picture_is_named(tmp_path, damage):
    for k in range(6):
        picture(tmp_path / f"{k}.png", noise(16, 16))
    bad = tmp_path / "broken one.png"
    content = (tmp_path / "0.png").read_bytes()
    bad.write_bytes({"text": b"this is no picture", "truncated": content[: len(content) // 2], "empty": b""}[damage])
    with pytest.raises(UserError, match="cannot be read") as caught:
        open_data(str(tmp_path))
    assert str(bad) in str(caught.value)


def test_folder_without_pictures(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UserError, match="no pictures"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("name", ["test", "val"])
def test_empty_part_is_refused_or_made_up(tmp_path, name):
    for k in range(12):
        picture(tmp_path / "train" / f"{k}.png", noise(4, 4))
    (tmp_path / name).mkdir()
    try:
        data = open_data(str(tmp_path))
    except UserError:
        return
    assert len(data.test) and len(data.val)


def png(width, height):
    """A PNG of a few bytes that promises this size."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [20_000, 8_001])  # beyond PIL's own limit, and below it
@pytest.mark.parametrize("image_size", [None, 8])
def test_picture_that_promises_gigabytes_is_refused(tmp_path, side, image_size):
    for k in range(6):
        picture(tmp_path / f"{k}.png", noise(8, 8))
    (tmp_path / "bomb.png").write_bytes(png(side, side))
    started = time.monotonic()
    with pytest.raises(UserError, match="pixels") as caught:
        open_data(str(tmp_path), image_size=image_size)
    assert "bomb.png" in str(caught.value)
    assert time.monotonic() - started < 2


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    deep = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    for k in range(6):
        picture(tmp_path / f"{k}.png", deep)
    data = open_data(str(tmp_path))
    assert data.image == (1, 8, 8)
    assert np.array_equal(data.train.images[0, 0].numpy(), deep >> 8)


def test_big_endian_tiff_is_grey(tmp_path):
    for k in range(6):
        picture(tmp_path / f"{k}.tif", (noise(8, 8, 1) * np.uint16(257)).astype(">u2"))
    assert open_data(str(tmp_path)).image == (1, 8, 8)


def test_rotated_photo_stands_upright(tmp_path):
    left_white = np.zeros((16, 32), np.uint8)
    left_white[:, :16] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to see it upright: the left side comes to the top
    for k in range(6):
        Image.fromarray(left_white).save(tmp_path / f"{k}.jpg", exif=exif, quality=95)
    data = open_data(str(tmp_path))
    assert data.image == (1, 32, 16)
    image = data.train.images[0, 0].float()
    assert image[:12].mean() > 240 and image[-12:].mean() < 15


def test_reading_tells_how_far_it_is(tmp_path):
    for k in range(6):
        picture(tmp_path / f"{k}.png", noise(4, 4))
    opened, told = told_by(lambda: open_data(str(tmp_path)))
    assert opened == [(f"reading {tmp_path.name}", 6)] and told == [1, 2, 3, 4, 5, 6]


def test_fingerprint_of_folder_sees_one_pixel(tmp_path):
    for k in range(8):
        picture(tmp_path / f"{k}.png", noise(6, 6, 1, seed=k))
    before = open_data(str(tmp_path)).fingerprint
    assert open_data(str(tmp_path)).fingerprint == before
    array = noise(6, 6, 1, seed=3)
    array[2, 2] ^= 1
    picture(tmp_path / "3.png", array)
    assert open_data(str(tmp_path)).fingerprint != before


def test_bundled_sets_are_what_they_say():
    for name, count, size in (("mnist-5k", 5000, 28), ("digits", 1797, 8)):
        images, labels = bundled(name).train
        assert images.shape == (count, 1, size, size) and images.dtype == torch.uint8
        assert (images.min(), images.max()) == (0, 255)
        assert labels.unique().tolist() == list(range(10))
    assert torch.bincount(bundled("mnist-5k").train[1]).tolist() == [500] * 10


@pytest.mark.parametrize("count", range(1, 41))
def test_showcase_without_labels_goes_from_first_to_last(count):
    split = Split(torch.arange(40, dtype=torch.uint8).reshape(40, 1, 1, 1), torch.full((40,), -1))
    chosen = (split.showcase(count).flatten() * 255).round().int().tolist()
    assert len(set(chosen)) == count and chosen == sorted(chosen) and chosen[0] == 0
    assert chosen[-1] == 39 or count == 1


def test_showcase_takes_class_after_class_in_turn():
    labels = torch.tensor([0, 0, 0, 2, 1, 2])
    split = Split(torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1), labels)
    assert (split.showcase(9).flatten() * 255).round().int().tolist() == [0, 4, 3, 1, 5, 2]


def test_labelled_images_are_balanced_and_drawn_by_the_seed(mnist, tmp_path):
    data = open_data("mnist-5k")
    some = data.train.labelled(105, 3)
    counts = torch.bincount(some.labels, minlength=10)
    assert len(some) == 105 and counts.min() == 10 and counts.max() == 11
    assert torch.equal(some.images, data.train.labelled(105, 3).images)
    assert not torch.equal(some.images, data.train.labelled(105, 4).images)
    order = some.shuffled(0, 1, length=250)
    assert torch.bincount(order).min() == 2 and torch.bincount(order).max() == 3 and len(order) == 250
    for n in (9, len(data.train) + 1):
        with pytest.raises(UserError, match=f"--labels {n}"):
            data.train.labelled(n, 0)
