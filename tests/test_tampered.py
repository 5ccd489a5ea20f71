"""Checkpoints whose checksums are right and whose contents are wrong: each is refused in a line or two, none is believed."""

import hashlib
import io
import json
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch
from driver import Fit, Interrupted, Silent, after, settings

from aelab.data import open_data
from aelab.errors import UserError
from aelab.training import checkpoint
from aelab.training.checkpoint import Checkpoint
from aelab.workflows import loading as opening

NAN, INF = float("nan"), float("inf")
CUT = 7  # an epoch has 3 steps: the two of the first phase are over, and the first step of the second phase is done


@pytest.fixture(scope="module")
def data():
    whole = open_data("digits")
    few = replace(whole.train, images=whole.train.images[:50], labels=whole.train.labels[:50])
    return replace(whole, train=few, val=few, test=few)


def training(data, folder):
    """Two phases of two epochs with an optimizer each, a third of none, and an average of the weights."""
    options = {"hidden": (8,), "pretrain": True, "finetune": 2, "labels": 20, "pseudo_label": 0}
    facts = {"image": [1, 8, 8], "classes": 10, "recipe": "pretrained"}
    return Fit("pretrained", data, folder, settings(2, 16, ema=0.5), options, facts)


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory):
    """The last and the best checkpoint of a training that was stopped."""
    folder = tmp_path_factory.mktemp("run")
    with pytest.raises(Interrupted):
        training(data, folder).fit(after(CUT))
    return [checkpoint.newest(folder / "checkpoints", kind, pytest.fail) for kind in ("last", "best")]


def written(folder, found):
    """A checkpoint in a folder, with sums that are true of it."""
    path = folder / found.path.name
    path.mkdir(parents=True)
    buffer = io.BytesIO()
    torch.save(found.state, buffer)
    files = {"weights.safetensors": safetensors.torch.save(found.weights)}
    files |= {"state.pt": buffer.getvalue()} if found.state else {}
    manifest = {key: value for key, value in found.manifest.items() if key != "sha256"}
    manifest["files"] = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in files.items()
    }
    for name, content in files.items():
        (path / name).write_bytes(content)
    (path / "manifest.json").write_text(json.dumps({**manifest, "sha256": checkpoint._digest(manifest)}))
    return path


def adam(state):
    """The state of the optimizer of the phase that is running."""
    return next(iter(state["optimizers"][1].values()))


def moment(state):
    return next(iter(adam(state)["state"].values()))


def at(**changes):
    return lambda last: last.state["progress"].update(changes)


def without(key):
    return lambda last: last.state.pop(key)


def put(key, value):
    return lambda last: last.state.update({key: value(last.state) if callable(value) else value})


def of(part, key, value):
    """Puts a value, or what becomes of the one that is there, into a part of the state."""
    return lambda last: part(last.state).update({key: value(part(last.state)[key]) if callable(value) else value})


def first(weights):
    return next(iter(weights))


TAMPERINGS = {
    **{
        f"no {key}": without(key)
        for key in ("progress", "epochs", "optimizers", "sums", "window_sums", "average", "rng", "rng_cuda")
    },
    "one part more": put("more", 1),
    "position is a list": put("progress", [1, 2]),
    "no step": lambda last: last.state["progress"].pop("step"),
    "a field more": at(more=1),
    **{
        f"{name} -1": at(**{name: -1})
        for name in (
            "phase",
            "epoch",
            "batch",
            "step",
            "epochs",
            "best_step",
            "since_best",
            "summed",
            "windowed",
            "skipped",
            "seconds",
            "spent",
        )
    },
    **{
        f"{name} 10**9": at(**{name: 10**9})
        for name in (
            "phase",
            "epoch",
            "batch",
            "step",
            "epochs",
            "best_step",
            "since_best",
            "summed",
            "windowed",
            "skipped",
        )
    },
    "phase 0": at(phase=0),
    "phase 2": at(phase=2),
    "phase 3: over": at(phase=3),
    "epoch of later": at(epoch=1),
    "another batch": at(batch=2, summed=2),
    "another step": at(step=6),
    "a huge step": at(step=10**400),
    "epochs of before": at(epochs=1),
    "phase 1.0": at(phase=1.0),
    "step as text": at(step="7"),
    "batch none": at(batch=None),
    "epoch true": at(epoch=True),
    "best nan": at(best=NAN),
    "best -inf": at(best=-INF),
    "best as text": at(best="1"),
    "seconds nan": at(seconds=NAN),
    "spent inf": at(spent=INF),
    "names as text": at(names="loss"),
    "names of numbers": at(names=[1, 2]),
    "no names": at(names=[]),
    "epochs of one phase": put("epochs", [2]),
    "epochs nan": put("epochs", [2, NAN, 0]),
    "epochs 0": put("epochs", [0, 0, 0]),
    "more epochs than the run": put("epochs", [2, 10**6, 0]),
    "negative epochs": put("epochs", [-2, 6, 0]),
    "epochs none": put("epochs", None),
    "sums of one more": put("sums", lambda s: torch.zeros(len(s["sums"]) + 1, dtype=torch.float64)),
    "sums of two dimensions": put("sums", lambda s: s["sums"][None]),
    "sums of integers": put("sums", lambda s: s["sums"].long()),
    "sums nan": put("sums", lambda s: s["sums"] * NAN),
    "sums a list": put("sums", lambda s: s["sums"].tolist()),
    "window_sums of one less": put("window_sums", lambda s: s["window_sums"][1:]),
    "optimizers none": put("optimizers", None),
    "optimizers of one phase": put("optimizers", lambda s: s["optimizers"][:1]),
    "optimizers swapped": put("optimizers", lambda s: s["optimizers"][::-1]),
    "optimizer of another name": put(
        "optimizers", lambda s: [dict.fromkeys("x", o) for p in s["optimizers"] for o in p.values()]
    ),
    "optimizer without groups": lambda last: adam(last.state).pop("param_groups"),
    "optimizer without state": lambda last: adam(last.state).pop("state"),
    "optimizer state a list": of(adam, "state", []),
    "optimizer state empty": of(adam, "state", {}),
    "spent 10**400": at(spent=10**400),
    "latest 10**400": at(latest=10**400),
    "optimizer state of a parameter too many": of(adam, "state", lambda s: s | {99: s[min(s)]}),
    "a group less": of(adam, "param_groups", []),
    "a group without betas": lambda last: adam(last.state)["param_groups"][0].pop("betas"),
    "betas nan": lambda last: adam(last.state)["param_groups"][0].update(betas=(NAN, 0.9)),
    "betas 5": lambda last: adam(last.state)["param_groups"][0].update(betas=(5.0, 5.0)),
    "lr as text": lambda last: adam(last.state)["param_groups"][0].update(lr="1"),
    "lr nan": lambda last: adam(last.state)["param_groups"][0].update(lr=NAN),
    "parameters of a group swapped": lambda last: adam(last.state)["param_groups"][0]["params"].reverse(),
    "weight decay": lambda last: adam(last.state)["param_groups"][0].update(weight_decay=1e9),
    "no moment": lambda last: moment(last.state).pop("exp_avg"),
    "a moment more": of(moment, "more", 1),
    "moment nan": of(moment, "exp_avg", lambda m: m * NAN),
    "moment inf": of(moment, "exp_avg", lambda m: m + INF),
    "moment of another shape": of(moment, "exp_avg", lambda m: m.flatten()[:1]),
    "moment of half precision": of(moment, "exp_avg", lambda m: m.half()),
    "moment a number": of(moment, "exp_avg", 1.0),
    "moment of integers": of(moment, "exp_avg", lambda m: m.long()),
    "second moment negative": of(moment, "exp_avg_sq", lambda m: m - 1.0),
    "steps negative": of(moment, "step", lambda s: s - 100.0),
    "steps nan": of(moment, "step", lambda s: s * NAN),
    "steps as text": of(moment, "step", "1"),
    "average none": put("average", None),
    "average without a weight": lambda last: last.state["average"].popitem(),
    "average nan": lambda last: last.state["average"].update(
        {k: v * NAN for k, v in last.state["average"].items() if k != "n_averaged"}
    ),
    "average of nothing": lambda last: last.state["average"].update(n_averaged=torch.tensor(0)),
    "average of negative": lambda last: last.state["average"].update(n_averaged=torch.tensor(-7)),
    "rng none": put("rng", None),
    "rng short": put("rng", lambda s: s["rng"][:100]),
    "rng of zeros": put("rng", lambda s: s["rng"] * 0),
    "rng of floats": put("rng", lambda s: s["rng"].float()),
    "rng of CUDA as text": put("rng_cuda", "x"),
    "a weight less": lambda last: last.weights.pop(first(last.weights)),
    "a weight more": lambda last: last.weights.update(more=torch.ones(1)),
    "weight nan": lambda last: last.weights.update({k: v * NAN for k, v in last.weights.items()}),
    "weight inf": lambda last: last.weights.update({k: v + INF for k, v in last.weights.items()}),
    "weight of another shape": lambda last: last.weights.update({first(last.weights): torch.ones(1)}),
    "weight of half precision": lambda last: last.weights.update({k: v.half() for k, v in last.weights.items()}),
    "manifest of another step": lambda last: last.manifest.update(step=8),
    "manifest step as text": lambda last: last.manifest.update(step="7"),
    "manifest of another kind": lambda last: last.manifest.update(kind="best"),
    "manifest without step": lambda last: last.manifest.pop("step"),
    "manifest step none": lambda last: last.manifest.update(step=None),
    "no state at all": lambda last: last.state.clear(),
}


def copied(found):
    return Checkpoint(found.path, dict(found.weights), deepcopy(found.state), deepcopy(found.manifest))


def test_what_was_not_tampered_with_is_believed(data, whole, tmp_path):
    last, best = (checkpoint.load(written(tmp_path, copied(found))) for found in whole)
    second = training(data, tmp_path)
    second.restore(last, best)
    at = second.progress
    assert (at.phase, at.epoch, at.batch, at.step, at.epochs) == (1, 0, 1, CUT, 2)
    second.fit(lambda: False)
    assert second.progress.step == second.steps == 12


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_checkpoint_that_was_tampered_with_is_refused(data, whole, tmp_path, name):
    last, best = map(copied, whole)
    TAMPERINGS[name](last)
    path = written(tmp_path, last)
    with pytest.raises(UserError) as caught:
        training(data, tmp_path).restore(checkpoint.load(path), best)
    text = str(caught.value)
    assert path.name in text and len(text) < 500 and text.count("\n") <= 2, text


@pytest.mark.parametrize(
    "name", [name for name in TAMPERINGS if "weight" in name and "decay" not in name and "average" not in name]
)
def test_so_is_a_best_one(data, whole, tmp_path, name):
    last, best = map(copied, whole)
    TAMPERINGS[name](best)
    with pytest.raises(UserError, match="checkpoint"):
        training(data, tmp_path).restore(last, checkpoint.load(written(tmp_path, best)))


def test_the_advice_of_torch_to_execute_code_is_not_passed_on(whole, tmp_path):
    last = copied(whole[0])
    last.state["more"] = Silent(tmp_path)
    with pytest.raises(UserError, match="cannot be read: it is damaged") as caught:
        checkpoint.load(written(tmp_path, last))
    assert "weights_only" not in str(caught.value) and str(caught.value).count("\n") == 0


@pytest.mark.parametrize("image", [[1, -8, -8], [1, 0, 8], [1, 10**9, 8], [1, 8], [1, 8.0, 8], "1x8x8"])
def test_a_shape_that_no_image_has_is_refused(whole, image):
    last = copied(whole[0])
    last.manifest["image"] = image
    info = SimpleNamespace(name="silent", params={"image_size": "x".join(map(str, image))})
    with pytest.raises(UserError, match="is of images"):
        opening._shape(info, last)


def test_a_manifest_of_brackets_is_no_manifest(whole, tmp_path):
    path = written(tmp_path, copied(whole[0]))
    (path / "manifest.json").write_text("[" * 200_000)
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(path)
    assert not checkpoint._is_best(path)


CONFIGURATIONS = {
    "brackets": "[" * 200_000,
    **{
        f"{name} {len(text)}": json.dumps({"recipe": "vae", "settings": {"epochs": 1, "batch_size": 16}, "options": {}})
        .replace('"epochs"', f'"{name}": {text}, "epochs"')
        for name, text in (("seed", str(2**70)), ("seed", str(2**33)), ("seed", "1" + "0" * 10**4), ("seed", "-1"),
                           ("patience", str(2**70)), ("ema", "1" + "0" * 400))
    },
    **{
        f"options {text}": json.dumps({"recipe": "vae", "settings": {"epochs": 1, "batch_size": 16}, "options": {}})
        .replace('"options": {}', f'"options": {text}')
        for text in ('{"latent_dim": [8, [9]]}', '{"latent_dim": null}', '{"latent_dim": {"a": 1}}', "[]")
    },
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_configuration_that_nobody_could_have_typed_is_refused(name, tmp_path):
    (tmp_path / "config.json").write_text(CONFIGURATIONS[name])
    info = SimpleNamespace(name="silent", recipe="vae", tags={"aelab.kind": "run"})
    with pytest.raises(UserError, match="configuration of run silent cannot be read") as caught:
        opening.configuration(info, SimpleNamespace(folder=lambda info: tmp_path))
    assert len(str(caught.value)) < 300
