"""The model that MLflow loads and serves: `mlflow.pyfunc.load_model`, `mlflow models serve`.

    model.predict(images, params={"task": "encode"})

The files of a model name this module, which must therefore stay. They hold weights and a configuration. The recipe that is
executed is the one of this machine, by the rules of `recipe_files.of_run`, never the copy among those files.
"""

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from aelab import recipe_files
from aelab.errors import UserError, did_you_mean, similar
from aelab.evaluation import eval_mode
from aelab.files import read_small_file
from aelab.recipe import Autoencodes, Classifies, Encodes, Generates
from aelab.tracking import RunInfo, RunWriter, Signature, invalid_input
from aelab.training import load_weights, pick_device
from aelab.workflows.model import SAMPLES, Model
from aelab.workflows.planning import LARGEST_SIDE, Config

log = logging.getLogger(__name__)

PACKAGES = ("aelab", "mlflow", "numpy", "safetensors", "torch", "torchvision")
CONFIG, WEIGHTS = "config.json", "model.safetensors"
Array = np.ndarray[Any, np.dtype[np.float32]]

_one_at_a_time = threading.Lock()  # a server predicts in several threads, which share torch's random state


@dataclass(frozen=True)
class Served(Model):
    """A model that needs neither the store nor the data of its run."""

    names: Sequence[str]  # of the classes

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, by number."""
        return self.names

    @property
    def takes_images(self) -> bool:
        """Whether its inputs are images (N, C, H, W); else they are codes (N, D)."""
        return isinstance(self.recipe, (Encodes, Classifies))

    @property
    def tasks(self) -> list[str]:
        """What it can be asked for; the first is what it does if it is not told. Some recipes can do nothing of it."""
        recipe = self.recipe
        able = {
            "classify": isinstance(recipe, Classifies),
            "reconstruct": isinstance(recipe, Autoencodes),
            "encode": isinstance(recipe, Encodes),
            "decode": isinstance(recipe, Generates) and not self.takes_images,
            "sample": isinstance(recipe, Generates),
        }
        return [task for task in able if able[task]]

    def predict(self, inputs: Array, params: dict[str, Any] | None = None) -> Array:
        """The answer of the task in `params` to images (N, C, H, W) or codes (N, D).

        "reconstruct" and "decode" give images (N, C, H, W), "encode" codes (N, D), "classify" probabilities (N, K). "sample"
        gives `n` images, drawn with `seed` and, where the model can, of the class `label`; its inputs do not matter. Raises
        MlflowException for another task, or inputs of another shape.
        """
        with _one_at_a_time:
            try:
                return self._predict(inputs, params or {})
            except UserError as problem:
                raise invalid_input(problem) from problem

    def _predict(self, inputs: Array, params: dict[str, Any]) -> Array:
        task = params.get("task") or self.tasks[0]
        if task not in self.tasks:
            hint = did_you_mean(similar(str(task), self.tasks))
            raise UserError(f"{self.name} has no task '{task!s:.60}'.{hint}", f"It has: {', '.join(self.tasks)}")
        x = torch.as_tensor(np.array(inputs))
        match task:
            case "classify":
                answer = self.classify(x)
            case "reconstruct":
                answer = self.reconstruct(x)
            case "encode":
                answer = self.encode(x)
            case "decode":
                answer = self.decode(x)
            case _:
                label = params.get("label") or None
                answer = self.sample(params.get("n"), label=label, seed=params.get("seed", 0))
        return answer.numpy()

    def example(self, images: Tensor) -> Tensor:
        """What it takes: one of the `images`, or a code."""
        if self.takes_images:
            return images[:1].cpu()
        assert isinstance(self.recipe, Generates)
        with eval_mode(self.recipe):
            return self.recipe.sample_prior(1).cpu()

    def signature(self, example: Tensor) -> Signature:
        """What it takes, what it gives if it is not told a task, and its parameters."""
        params: dict[str, str | int] = {"task": self.tasks[0]}
        if "sample" in self.tasks:
            params |= {"n": SAMPLES, "seed": 0}
        if self.conditional:
            params["label"] = ""
        match self.tasks[0]:
            case "classify":
                outputs = [self.classes]
            case "encode":
                outputs = list(self.encode(example).shape[1:])
            case _:
                outputs = list(self.image)
        return Signature([-1, *example.shape[1:]], [-1, *outputs], params)

    def write(self, folder: Path) -> None:
        """Writes what `_load_pyfunc` loads. Raises OSError."""
        facts = {
            "run_id": self.id,
            "run": self.name,
            "recipe": self.info.recipe,
            "recipe_sha256": self.recipe_file.sha256,
            "config": asdict(self.config),
            "image": list(self.image),
            "classes": list(self.names),
        }
        (folder / CONFIG).write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (folder / self.recipe_file.path.name).write_bytes(self.recipe_file.content)
        save_file(
            {name: value.detach().cpu().clone().contiguous() for name, value in self.recipe.state_dict().items()},
            folder / WEIGHTS,
        )


def publish(writer: RunWriter, model: Served, step: int, images: Tensor) -> None:
    """Writes the kept weights of a run, those after `step` steps, as a model of MLflow's, with one of the `images` as example.

    A recipe that can do none of the tasks has none. Raises UserError if the disk does not take it.
    """
    if not model.tasks:
        return
    example = model.example(images)
    packages = [f"{name}=={metadata.version(name).partition('+')[0]}" for name in PACKAGES]
    writer.model(step, model.write, __name__, model.signature(example), example.numpy(), packages)


def _load_pyfunc(path: str) -> Served:
    """Loads the model in a folder: MLflow calls it. Raises UserError if it cannot be read, or if its recipe is not trusted."""
    folder = Path(path)
    try:
        facts = json.loads(read_small_file(folder / CONFIG))
        config = Config.from_json(facts["config"])
        channels, height, width = (int(side) for side in facts["image"])
        if not all(1 <= side <= LARGEST_SIDE for side in (channels, height, width)):
            raise ValueError(f"its images are {facts['image']!r:.60}")
        names = tuple(map(str, facts["classes"]))
        run_id, run, name, digest = (str(facts[key]) for key in ("run_id", "run", "recipe", "recipe_sha256"))
        weights = load_file(folder / WEIGHTS)
    except Exception as error:  # a crafted file can make json or safetensors raise anything
        raise UserError(f"the model in {path} cannot be read: {(str(error) or repr(error)).splitlines()[0]}") from error
    recipe_file = recipe_files.of_run(config.recipe, name)
    if recipe_file.sha256 != digest:
        log.warning(f"{recipe_file.path.name} has changed since {run} was trained.")
    recipe = recipe_files.build(recipe_file, (channels, height, width), config.options, len(names))
    try:
        load_weights(recipe, weights)
    except ValueError as error:
        raise UserError(f"the weights of {run} do not fit {recipe_file.path.name} as it is now: {error}.") from error
    info = RunInfo(run_id, run, "FINISHED", "", None, None, {}, {"aelab.recipe": name}, {}, "")
    recipe = recipe.to(pick_device("auto")).eval()
    return Served(info, config, recipe_file, recipe, (channels, height, width), len(names), names)
