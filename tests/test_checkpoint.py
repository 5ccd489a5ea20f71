import json
import os
import shutil
import stat
from pathlib import Path

import pytest
import torch
from torch import nn

from aelab.errors import UserError
from aelab.training import checkpoint


def silent(text):
    pytest.fail(f"a warning: {text}")


def trained():
    """A small network and its Adam after some steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    adam = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(3):
        adam.zero_grad()
        model(torch.randn(8, 3)).square().mean().backward()
        adam.step()
    return model, adam


def write(folder, kind="last", step=1, value=1.0, state=None):
    state = {"progress": {"step": step}} if kind == "last" and state is None else state or {}
    return checkpoint.save(folder, kind, step, {"w": torch.full((2, 3), value)}, state, {"recipe": "x"})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def same(a, b):
    """Whether two nested structures are equal to the bit."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_round_trip_of_weights_and_a_real_adam(tmp_path):
    model, adam = trained()
    state = {"optimizers": [{"adam": adam.state_dict()}], "rng": torch.get_rng_state(), "rng_cuda": None,
             "progress": {"step": 3, "best": float("inf"), "names": ["loss"]}}  # fmt: skip
    facts = {"recipe": "linear", "image": [1, 28, 28], "options": {"lr": 1e-2}}
    path = checkpoint.save(tmp_path, "last", 3, model.state_dict(), state, facts)
    found = checkpoint.load(path)
    assert same(found.weights, dict(model.state_dict()))
    assert same(found.state, state)
    assert {key: found.manifest[key] for key in facts} == facts
    assert (found.manifest["kind"], found.manifest["step"], found.path) == ("last", 3, path)

    other, other_adam = trained()
    other.load_state_dict(found.weights)
    other_adam.load_state_dict(found.state["optimizers"][0]["adam"])
    x = torch.randn(8, 3)
    for net, optimizer in ((model, adam), (other, other_adam)):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    assert same(dict(model.state_dict()), dict(other.state_dict()))


def test_best_has_no_state(tmp_path):
    path = write(tmp_path, "best")
    assert names(path) == ["manifest.json", "weights.safetensors"]
    assert checkpoint.load(path).state == {}


def test_views_are_saved_whole(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    path = checkpoint.save(tmp_path, "best", 1, {"turned": base.T, "whole": nn.Parameter(base.clone())}, {}, {})
    found = checkpoint.load(path).weights
    assert torch.equal(found["turned"], base.T) and torch.equal(found["whole"], base)


def test_tied_weights_are_saved(tmp_path):
    encoder, decoder = nn.Linear(4, 4), nn.Linear(4, 4)
    decoder.weight = encoder.weight
    weights = nn.Sequential(encoder, decoder).state_dict()
    assert same(checkpoint.load(checkpoint.save(tmp_path, "best", 1, weights, {}, {})).weights, dict(weights))


# corruption


@pytest.mark.parametrize("name", ["weights.safetensors", "state.pt"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "empty", "append"])
def test_damaged_file_is_refused_and_named(tmp_path, name, damage):
    path = write(tmp_path)
    content = (path / name).read_bytes()
    places = range(0, len(content), 97) if damage == "flip" else [0]
    for place in places:
        if damage == "delete":
            (path / name).unlink()
        else:
            flipped = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
            wrong = {"flip": flipped, "truncate": content[:-1], "empty": b"", "append": content + b"\0"}[damage]
            (path / name).write_bytes(wrong)
        with pytest.raises(UserError) as caught:
            checkpoint.load(path)
        assert str(path / name) in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"format": 1}', b'{"format": 1, "files": 3}',
        b'{"format": 1, "files": {}}', b'{"format": 1, "files": {"state.pt": {}}}',
    ],
)  # fmt: skip
def test_damaged_manifest_is_refused(tmp_path, content):
    path = write(tmp_path)
    (path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        checkpoint.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("what", ["manifest", "folder"])
def test_missing_manifest_or_folder_is_refused(tmp_path, what):
    path = write(tmp_path)
    shutil.rmtree(path) if what == "folder" else (path / "manifest.json").unlink()
    with pytest.raises(UserError, match=path.name):
        checkpoint.load(path)


def test_any_flipped_bit_of_the_manifest_ends_in_a_problem_or_a_checkpoint(tmp_path):
    path = write(tmp_path)
    content = (path / "manifest.json").read_bytes()
    refused = 0
    for place in range(len(content)):
        (path / "manifest.json").write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        try:
            assert torch.equal(checkpoint.load(path).weights["w"], torch.ones(2, 3))
        except UserError:
            refused += 1
    assert refused > len(content) / 2


def test_altered_facts_are_refused(tmp_path):
    path = checkpoint.save(tmp_path, "best", 1, {"w": torch.ones(1)}, {}, {"image": [1, 28, 28]})
    text = (path / "manifest.json").read_text().replace("28", "29")
    (path / "manifest.json").write_text(text)
    with pytest.raises(UserError):
        checkpoint.load(path)


def test_another_format_is_refused_by_its_number(tmp_path):
    path = write(tmp_path)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"format": checkpoint.FORMAT + 1}))
    with pytest.raises(UserError, match=rf"format {checkpoint.FORMAT + 1}; .* reads {checkpoint.FORMAT}"):
        checkpoint.load(path)


def test_newest_passes_over_a_corrupt_one_and_names_it(tmp_path):
    write(tmp_path, step=10, value=1.0)
    bad = write(tmp_path, step=20, value=2.0)
    (bad / "state.pt").write_bytes(b"rubbish")
    warnings = []
    found = checkpoint.newest(tmp_path, "last", warnings.append)
    assert found.manifest["step"] == 10 and found.weights["w"].eq(1).all()
    assert len(warnings) == 1 and str(bad) in warnings[0]


def test_newest_of_none_and_of_corrupt_ones_is_none(tmp_path):
    assert checkpoint.newest(tmp_path / "missing", "last", silent) is None
    write(tmp_path, "best")
    assert checkpoint.newest(tmp_path, "last", silent) is None
    (write(tmp_path) / "state.pt").unlink()
    warnings = []
    assert checkpoint.newest(tmp_path, "last", warnings.append) is None
    assert len(warnings) == 1


# what is kept


def test_two_last_and_one_best_are_kept(tmp_path):
    for step in (8, 9, 10, 99, 100):
        write(tmp_path, "last", step, step)
        write(tmp_path, "best", step - 5, step)
        assert checkpoint.newest(tmp_path, "last", silent).manifest["step"] == step
        assert checkpoint.newest(tmp_path, "best", silent).weights["w"].eq(step).all()
    assert names(tmp_path) == ["best-00000095", "last-00000099", "last-00000100"]


@pytest.mark.parametrize(("kind", "corrupt"), [("best", [100]), ("last", [100, 110])])
def test_what_was_just_written_stays_beside_corrupt_ones(tmp_path, kind, corrupt):
    for step in corrupt:
        (write(tmp_path, kind, step) / "weights.safetensors").write_bytes(b"rubbish")
    path = write(tmp_path, kind, 90)
    assert path.exists()
    assert checkpoint.newest(tmp_path, kind, lambda _: None).manifest["step"] == 90


def test_same_step_twice_is_one_checkpoint(tmp_path):
    first = write(tmp_path, step=5)
    before = {path.name: path.stat().st_mtime_ns for path in first.iterdir()}
    assert write(tmp_path, step=5) == first
    assert {path.name: path.stat().st_mtime_ns for path in first.iterdir()} == before
    assert names(tmp_path) == ["last-00000005"]


def test_corrupt_one_of_the_same_step_is_written_anew(tmp_path):
    path = write(tmp_path, step=5)
    (path / "weights.safetensors").write_bytes(b"rubbish")
    assert write(tmp_path, step=5) == path
    assert checkpoint.load(path).weights["w"].eq(1).all()


def test_last_and_best_do_not_push_each_other_out(tmp_path):
    write(tmp_path, "best", 1)
    for step in (2, 3, 4):
        write(tmp_path, "last", step)
    assert names(tmp_path) == ["best-00000001", "last-00000003", "last-00000004"]


def test_a_finished_run_has_no_checkpoint_twice(tmp_path):
    for step in (3, 4):
        write(tmp_path, "last", step, step)
        write(tmp_path, "best", step, step)
    checkpoint.finish(tmp_path)
    assert names(tmp_path) == ["best-00000004", "last-00000004"], "the last one does not say that it is the best"
    state, facts = {"progress": {"step": 5}}, {"best": True}
    checkpoint.save(tmp_path, "last", 5, {"w": torch.full((2, 3), 5.0)}, state, facts)
    assert checkpoint.newest(tmp_path, "best", silent).manifest["step"] == 5, "newer than the best one"
    checkpoint.finish(tmp_path)
    assert names(tmp_path) == ["last-00000005"]
    for kind in ("last", "best"):
        found = checkpoint.newest(tmp_path, kind, silent)
        assert found.weights["w"].eq(5).all() and found.state == state
    write(tmp_path, "best", 6, 6.0)
    assert checkpoint.newest(tmp_path, "best", silent).weights["w"].eq(6).all(), "a later best one is better"


def test_nothing_is_removed_beside_a_corrupt_last_one(tmp_path):
    for step in (3, 4):
        path = checkpoint.save(tmp_path, "last", step, {"w": torch.ones(1)}, {"progress": {}}, {"best": True})
        write(tmp_path, "best", step)
    (path / "weights.safetensors").write_bytes(b"rubbish")
    checkpoint.finish(tmp_path)
    assert names(tmp_path) == ["best-00000004", "last-00000003", "last-00000004"]
    checkpoint.finish(tmp_path / "missing")


def test_a_last_one_that_is_altered_is_not_believed_to_be_the_best(tmp_path):
    write(tmp_path, "best", 3, 3.0)
    path = write(tmp_path, "last", 4, 4.0)
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | {"best": True}))
    warnings = []
    assert checkpoint.newest(tmp_path, "best", warnings.append).weights["w"].eq(3).all()
    assert len(warnings) == 1 and "altered" in warnings[0]
    (path / "manifest.json").write_text("[]")
    assert checkpoint.newest(tmp_path, "best", silent).weights["w"].eq(3).all()


def test_moved_folder_loads(tmp_path):
    write(tmp_path / "a", step=7)
    (tmp_path / "a").rename(tmp_path / "b c")
    found = checkpoint.newest(tmp_path / "b c", "last", silent)
    assert found.manifest["step"] == 7 and found.weights["w"].eq(1).all()


# the disk


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_file_modes_follow_the_umask(tmp_path, mask):
    before = os.umask(mask)
    try:
        path = write(tmp_path / "checkpoints")
    finally:
        os.umask(before)
    for folder in (path, path.parent):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o777 & ~mask
    for file in path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o666 & ~mask


@pytest.mark.parametrize("call", [1, 2, 3, 4])  # weights, state, manifest, the folder
@pytest.mark.parametrize("step", [1, 2])  # the old one's step (it is corrupt then), and the next
def test_failing_write_leaves_what_was_there(tmp_path, monkeypatch, call, step):
    old = write(tmp_path, step=1)
    if step == 1:
        (old / "state.pt").write_bytes(b"rubbish")
    before = {path.name: path.read_bytes() for path in old.iterdir()}
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) == call:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, step=step, value=2.0)
    assert names(tmp_path) == ["last-00000001"]
    assert {path.name: path.read_bytes() for path in old.iterdir()} == before


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux which file a descriptor belongs to")
def test_everything_is_synced_before_it_is_renamed(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(Path(f"/proc/self/fd/{descriptor}").readlink()))
    path = write(tmp_path)
    assert {file.name for file in synced[:3]} == set(names(path))
    assert synced[0].parent == synced[3] != path
    assert synced[4:] == [tmp_path]


def test_leftovers_of_a_killed_process_are_removed(tmp_path):
    path = write(tmp_path, step=1)
    shutil.copytree(path, tmp_path / ".last-00000002.999999999")
    write(tmp_path, step=3)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_unfinished_folder_is_not_a_checkpoint(tmp_path):
    path = write(tmp_path, step=1)
    shutil.copytree(path, tmp_path / ".last-00000002.999999999")
    assert checkpoint.present(tmp_path, "last") == [path]
