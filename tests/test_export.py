"""Models as programs of ONNX, as safetensors and as a card of the Hugging Face hub; the load of the machine in MLflow."""

import importlib.util
import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file

import aelab
from aelab import recipe_files
from aelab.tracking import Store
from aelab.workflows import exporting

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is missing: uv sync --extra export")

pytestmark = pytest.mark.usefixtures("in_a_store")

PARTS = {  # what each recipe has
    "convolutional": {"encoder": "encode", "decoder": "decode"},
    "denoising": {"encoder": "encode", "decoder": "decode"},
    "gan": {"decoder": "decode"},
    "linear": {"encoder": "encode", "decoder": "decode"},
    "pixelcnn": {},
    "pretrained": {"encoder": "encode", "classifier": "classify"},
    "rbm": {"encoder": "encode", "decoder": "decode"},
    "recurrent": {"encoder": "encode", "decoder": "decode"},
    "stacked": {"encoder": "encode", "decoder": "decode"},
    "vae": {"encoder": "encode", "decoder": "decode"},
    "vaegan": {"encoder": "encode", "decoder": "decode"},
}


def exported(recipe, cli, here):
    """A model of a recipe is exported; its programs compute in onnxruntime what PyTorch does, for any number of images."""
    run = aelab.train(recipe, data="digits", max_steps=2, name="one")
    answer = cli("runs", "export", "one", "out", "--format", "onnx")
    assert answer.code == 0, answer.err
    assert {path.stem for path in (here / "out").glob("*.onnx")} == set(PARTS[recipe])
    for part, method in PARTS[recipe].items():
        session = onnxruntime.InferenceSession(f"out/{part}.onnx")
        (entry,) = session.get_inputs()
        for n in (1, 2, 5):
            x = torch.rand(n, *run.image)
            if part == "decoder":
                x = run.encode(x) if "encoder" in PARTS[recipe] else run.recipe.sample_prior(n)
            with torch.no_grad():
                wanted = getattr(run.recipe, method)(x)
            np.testing.assert_allclose(session.run(None, {entry.name: x.numpy()})[0], wanted, atol=1e-5)
    weights = load_file("out/model.safetensors")
    assert weights.keys() == run.recipe.state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in run.recipe.state_dict().items())
    return answer


def test_a_model_is_exported_to_onnx(cli, here):
    exported("vae", cli, here)
    card = (here / "out/README.md").read_text()
    assert "encoder.onnx, decoder.onnx: for onnxruntime" in card


@pytest.mark.slow
@pytest.mark.parametrize("recipe", sorted(PARTS.keys() - {"vae"}))
def test_every_recipe_is_exported_to_onnx(recipe, cli, here):
    answer = exported(recipe, cli, here)
    assert ("no decoder.onnx: PixelCNN draws an image in many steps" in answer.err) == (recipe == "pixelcnn")


def test_every_recipe_is_asked():
    assert set(recipe_files.available()) == set(PARTS)


MINE = '''"""A model that draws codes while it encodes, so that no two programs agree."""
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor, nn

from aelab.recipe import ImageShape, Metrics, Recipe


class Mine(Recipe):
    def __init__(self, image: ImageShape, *, lr: Annotated[float, Gt(0), "learning rate"] = 1e-3) -> None:
        super().__init__()
        self.lr, self.image = lr, image
        self.scale = nn.Parameter(torch.ones(()))

    def encode(self, x: Tensor) -> Tensor:
        return x.flatten(1) * self.scale + torch.randn_like(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        if z.sum() > 0:
            z = z * 2
        return z.view(-1, *self.image) * self.scale

    def loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, Metrics]:
        return ((self.decode(self.encode(x)) - x) ** 2).mean(), {}
'''


def test_what_cannot_be_exported_says_so_in_a_line(cli, here):
    (here / "recipes").mkdir()
    (here / "recipes/mine.py").write_text(MINE)
    aelab.train("mine", data="digits", max_steps=1, name="one")
    answer = cli("runs", "export", "one", "out", "--format", "onnx")
    lines = [line for line in answer.err.splitlines() if line.startswith("warning")]
    assert answer.code == 0 and len(lines) == 2 and "def forward" not in answer.err
    assert "no encoder.onnx: onnxruntime and PyTorch differ by" in lines[0] and "no decoder.onnx: " in lines[1]
    assert (here / "out/model.safetensors").exists() and not list((here / "out").glob("*.onnx*"))


def test_without_the_packages_a_line_says_what_to_install(cli, here, monkeypatch):
    there = importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda name, *rest: None if name == "onnx" else there(name, *rest)
    )
    answer = cli("runs", "export", "one", "out", "--format", "onnx")
    assert answer.code == 2 and "--format onnx needs onnx.\n" in answer.err and "pip install onnx" in answer.err
    assert not (here / "out").exists()


def test_the_card_is_one_of_the_hugging_face_hub(cli, here):
    run = aelab.train("stacked", data="digits", max_steps=2, hidden=[8], name="a name: with 'signs'")
    aelab.evaluate(run, plain=True, figures=False)
    run = aelab.load(run.id)
    aelab.export(run, "out")
    card = ModelCard((here / "out/README.md").read_text())
    facts = card.data.to_dict()
    assert facts["library_name"] == "pytorch" and facts["tags"] == ["aelab", "stacked"]
    assert card.data.pipeline_tag == "image-feature-extraction" and card.data.model_name == run.name
    told = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert told["test/mse"] == run.metrics["test/mse"] and all(map(math.isfinite, told.values()))
    assert {each.dataset_name for each in card.data.eval_results} == {"digits"}
    assert card.text.lstrip().startswith(f"# {run.name}")


@pytest.mark.parametrize("recipe", ["vae", "gan", "pixelcnn"])
def test_the_card_draws_a_class_and_names_the_classes(recipe, cli, here):
    aelab.train(recipe, data="digits", max_steps=1, conditional=True, name="one")
    assert cli("runs", "export", "one", "out", *["--format", "onnx"] * (recipe == "gan")).code == 0
    card = (here / "out/README.md").read_text()
    code = card.partition("```python\n")[2].partition("```")[0] + "print(of_a_class.shape)\n"
    ran = subprocess.run([sys.executable, "-c", code], cwd=here / "out", capture_output=True, text=True, check=True)
    assert ran.stdout == "torch.Size([16, 1, 8, 8])\n"
    assert json.loads((here / "out/config.json").read_text())["class_names"] == list("0123456789")
    assert ("the last 10 values of a code are its class" in card) == (recipe == "gan")


def test_a_generator_is_exported_without_its_data_but_for_the_names_of_its_classes(cli, here):
    for k in range(20):
        (here / f"pictures/{k % 2}").mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 12 * k).save(here / f"pictures/{k % 2}/{k}.png")
    aelab.train("gan", data="pictures", max_steps=1, conditional=True, name="one")
    (here / "pictures").rename(here / "elsewhere")
    answer = cli("runs", "export", "one", "out")
    assert answer.code == 0 and "config.json has no class_names: there is no data set or folder" in answer.err
    assert json.loads((here / "out/config.json").read_text())["class_names"] == []


def test_programs_is_format_pt2_now(cli, here):
    aelab.train("stacked", data="digits", max_steps=1, hidden=[8], name="one")
    answer = cli("runs", "export", "one", "out", "--programs")
    assert answer.code == 0 and "--format pt2" in answer.err and (here / "out/encoder.pt2").exists()
    assert "--programs" not in cli("runs", "export", "--help").out


def test_system_metrics_are_logged_when_mlflows_variable_asks(monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.05")
    aelab.train("stacked", data="digits", epochs=1, hidden=[8], name="one")
    store = Store()
    key = "system/cpu_utilization_percentage"
    first = store.curve(store.find("one"), key)
    assert [step for step, _ in first] == list(range(len(first))) and first
    aelab.resume("one", epochs=2)
    both = store.curve(store.find("one"), key)
    assert [step for step, _ in both] == list(range(len(both))) and len(both) > len(first)
    monkeypatch.delenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING")
    quiet = aelab.train("stacked", data="digits", max_steps=1, hidden=[8])
    assert not any(name.startswith("system/") for name in quiet.metrics)


def test_without_psutil_a_line_says_so_before_there_is_a_run(cli, monkeypatch):
    monkeypatch.setenv("MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING", "true")
    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "psutil" else there(name, *rest)
    )
    answer = cli("train", "stacked", "--data", "digits", "--max-steps", 1)
    assert answer.code == 2 and "pip install psutil" in answer.err and not Store().runs()
