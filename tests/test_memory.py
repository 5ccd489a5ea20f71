"""Memory that is not there is asked for before it is taken: the machine's, and what control groups leave of it."""

import json

import numpy as np
import pytest
from PIL import Image

from aelab.data import memory, open_data
from aelab.data.readers import read_idx
from aelab.errors import UserError

GB = 1_000_000_000


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with 8 GB available, whose control groups are written by `write`."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 32000000 kB\nMemFree: 100 kB\nMemAvailable: {8 * GB // 1024} kB\n")
    monkeypatch.setattr(memory, "PROC", proc)
    monkeypatch.setattr(memory, "GROUPS", groups)

    def write(cgroup, files):
        (proc / "self" / "cgroup").write_text(cgroup)
        for name, content in files.items():
            (groups / name).parent.mkdir(parents=True, exist_ok=True)
            (groups / name).write_text(str(content))

    return write


V1 = {"limit_in_bytes": 2 * GB, "usage_in_bytes": GB + 5, "stat": f"cache 9\ntotal_inactive_file {GB // 2}\n"}
V2 = {"max": 2 * GB, "current": GB + 5, "stat": f"file 9\ninactive_file {GB // 2}\n"}


@pytest.mark.parametrize(
    ("cgroup", "folder", "files", "left"),
    [
        ("0::/\n", "", V2, 1.5),
        ("0::/user/mine\n", "user/mine/", V2, 1.5),
        ("0::/user/mine\n", "user/", V2, 1.5),  # of the group above
        ("0::/user/mine\n", "user/", {**V2, "max": "max\n"}, 8),
        ("0::/user/mine\n", "other/", V2, 8),
        ("9:cpu:/x\n4:cpuset,memory:/jobs/1\n0::/\n", "memory/jobs/1/", V1, 1.5),
        ("4:memory:/docker/abc\n", "memory/", V1, 1.5),  # in a container: its own root, the host's path
        ("4:memory:/\n", "memory/", {**V1, "limit_in_bytes": 9223372036854771712}, 8),
        ("4:memory:/\n", "memory/", {**V1, "usage_in_bytes": 3 * GB}, 0),
    ],
)
def test_what_a_control_group_leaves(machine, cgroup, folder, files, left):
    machine(cgroup, {f"{folder}memory.{name}": content for name, content in files.items()})
    assert memory.available() == pytest.approx(left * GB, abs=2000)


def test_without_linux_all_that_there_is_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    assert memory.available() > 1 << 28


@pytest.fixture
def album(here):
    (here / "album").mkdir()
    for number in range(12):
        Image.fromarray(np.full((8, 10, 3), number, np.uint8)).save(here / "album" / f"{number}.png")
    return here / "album"


def test_pictures_for_which_there_is_no_memory_are_refused(album, monkeypatch):
    """Twelve colour pictures of 30,000 x 30,000 are 32.4 GB, and their split is another."""
    monkeypatch.setattr(memory, "available", lambda: 60 * GB)
    with pytest.raises(
        UserError, match="12 pictures of 30000 x 30000 need 65 GB of memory, and 60 GB are free"
    ) as refused:
        open_data("album", image_size=30_000)
    assert "--image-size" in str(refused.value) and refused.value.code == 2
    needed = 2 * 12 * 3 * 64 * 64 + 12 * 80
    monkeypatch.setattr(memory, "available", lambda: needed - 1)
    with pytest.raises(UserError, match="memory"):
        open_data("album", image_size=64)
    monkeypatch.setattr(memory, "available", lambda: needed)
    assert open_data("album", image_size=64).image == (3, 64, 64)


def test_a_step_for_which_there_is_no_memory_is_refused_before_there_is_a_run(album, cli, monkeypatch):
    monkeypatch.setattr(memory, "available", lambda: 3 * 4 * 9 * 3 * 64 * 64 - 1)
    words = ["train", "linear", "--data", "album", "--image-size", 64, "--batch-size", 9, "--max-steps", 1, "-q"]
    answer = cli(*words)
    assert answer.code == 2 and "steps of 9 images of 3 x 64 x 64 need" in answer.err and "--batch-size" in answer.err
    assert json.loads(cli("runs", "--json").out)["runs"] == []


def test_an_idx_file_for_which_there_is_no_memory_is_refused(here, monkeypatch):
    (here / "x").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 10]) + bytes(10))
    monkeypatch.setattr(memory, "available", lambda: 29)
    with pytest.raises(UserError, match="memory"):
        read_idx(here / "x")
    monkeypatch.setattr(memory, "available", lambda: 30)
    assert read_idx(here / "x").shape == (10,)
