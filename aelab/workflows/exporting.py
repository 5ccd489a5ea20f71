"""Exports a model into a folder from which it is loaded without aelab, and which the Hugging Face hub takes as it is."""

import importlib.util
import io
import json
import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from aelab import networks, recipe_files
from aelab import recipe as interface
from aelab.errors import UserError, checked
from aelab.evaluation import eval_mode
from aelab.figures import Picture, grid, reconstruction_grid, write
from aelab.metrics import against, number
from aelab.progress_bar import progress_bar
from aelab.recipe import Autoencodes, Classifies, Completes, Conditional, Decodes, Encodes, Generates, Recipe
from aelab.workflows.card import unit
from aelab.workflows.loading import load
from aelab.workflows.planning import all_options
from aelab.workflows.run import Run

log = logging.getLogger(__name__)

EXAMPLES = 32  # images in the example picture
TOLERANCE = 1e-5  # between onnxruntime and PyTorch, relative to the largest value where that is above 1
ONNX = ("onnx", "onnxruntime", "onnxscript")
Format = Literal["pt2", "onnx"]


@checked
def export(
    run: str | Path | Run,
    folder: Path | str,
    *,
    format: Format | None = None,  # its name on the command line
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> list[Path]:
    """Writes a run's weights, configuration, recipe, card and an example picture into a new or empty folder.

    With a `format`, encoder, decoder and classifier are also written as programs that need no recipe: "pt2" those of
    torch.export, "onnx" those of ONNX, each compared in onnxruntime with PyTorch. A warning names what cannot be a program,
    such as the decoder of a recipe that draws an image in many steps. The recipe is the source on this machine that was
    executed, not the copy among the run's files, which may come from anyone. Returns the files. Raises UserError if the
    folder is not empty or cannot be written, or if the packages for ONNX are missing.
    """
    if format == "onnx" and (missing := [name for name in ONNX if not importlib.util.find_spec(name)]):
        raise UserError(
            f"--format onnx needs {', '.join(missing)}.",
            f"Install: pip install {' '.join(missing)} (all three are in the extra aelab[export])",
            code=2,
        )
    folder = Path(folder)
    opened = load(run, device="cpu", data_dir=data_dir, tracking_uri=tracking_uri)
    recipe_file = opened.recipe_file
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not an empty folder; nothing was written.", code=2)
        (folder / "aelab").mkdir(parents=True)
        (folder / recipe_file.path.name).write_bytes(recipe_file.content)
        for module in (interface.__file__, networks.__file__):  # what a recipe imports; both need torch only
            copyfile(module, folder / "aelab" / Path(module).name)
        (folder / "aelab" / "__init__.py").write_text(
            '"""What the recipe beside this folder imports."""\n', encoding="utf-8"
        )
        weights = {name: value.clone().contiguous() for name, value in opened.recipe.state_dict().items()}
        (folder / "model.safetensors").write_bytes(save(weights))  # save_file lets the owner alone read it
        facts = json.dumps(_facts(opened), indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(facts + "\n", encoding="utf-8")
        write(folder / "example.png", _example(opened))
        programs = _programs(opened, folder, format) if format else []
        (folder / "README.md").write_text(_card(opened, recipe_file.path.stem, programs), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}", code=2) from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _facts(run: Run) -> dict[str, Any]:
    """The content of config.json."""
    info = run.info
    return {
        "recipe": info.recipe,
        "class": type(run.recipe).__name__,
        "image": list(run.image),
        "classes": run.classes,
        "class_names": _class_names(run),
        "options": all_options(run.recipe_file, run.config.options),
        "settings": asdict(run.config.settings),
        "data": run.config.data,
        "data_fingerprint": info.tags.get("aelab.data_fingerprint"),
        "run_id": info.id,
        "run": info.name,
        "recipe_sha256": run.recipe_file.sha256,
        "metrics": dict(info.metrics),
        "versions": {name: metadata.version(name) for name in ("aelab", "torch", "safetensors")},
    }


def _asked(recipe: Recipe) -> bool:
    """Whether the recipe draws images of a class that is asked for."""
    return isinstance(recipe, Conditional) and recipe.conditional


def _class_names(run: Run) -> list[str]:
    """The names of the classes that the model draws or tells apart, in order.

    None, with a warning, if the data that have them are not on this machine.
    """
    if not (isinstance(run.recipe, Classifies) or _asked(run.recipe)):
        return []
    try:
        return list(run.class_names)
    except UserError as problem:
        log.warning(f"config.json has no class_names: {str(problem).splitlines()[0]}")
        return []


def _example(run: Run) -> Picture:
    """A picture of reconstructions of test images, else of samples, else of test images, whichever the recipe has."""
    with eval_mode(run.recipe):
        if isinstance(run.recipe, Autoencodes):
            return reconstruction_grid(run.recipe, run.data().test.showcase(EXAMPLES))
        if isinstance(run.recipe, Generates):
            return grid(run.recipe.decode(run.recipe.sample_prior(EXAMPLES)))
        return grid(run.data().test.showcase(EXAMPLES))


class _Part(nn.Module):
    """A method of a recipe as a module of its own, as programs are made of modules."""

    def __init__(self, recipe: Recipe, method: str) -> None:
        super().__init__()
        self.recipe, self.method = recipe, method

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = getattr(self.recipe, self.method)(x)
        return answer


def _programs(run: Run, folder: Path, kind: Format) -> list[str]:
    """Writes the programs encoder, images (B, C, H, W) -> codes (B, D), decoder, codes -> images, and classifier, images ->
    logits (B, K), for any B; those that the recipe has. Returns their names. A warning names one that cannot be written.
    """
    recipe, written = run.recipe, []
    images = torch.rand(2, *run.image, generator=torch.Generator().manual_seed(0))
    with eval_mode(recipe):
        parts: list[tuple[str, str, Tensor, tuple[str, str]]] = []
        codes = None
        if isinstance(recipe, Encodes):
            codes = recipe.encode(images)
            parts.append(("encoder", "encode", images, ("images", "codes")))
        elif isinstance(recipe, Generates):
            codes = recipe.sample_prior(2)
        if isinstance(recipe, Classifies):
            parts.append(("classifier", "classify", images, ("images", "logits")))
        if isinstance(recipe, Decodes) and codes is not None:
            if not isinstance(recipe, Completes):
                parts.append(("decoder", "decode", codes, ("codes", "images")))
            else:
                what = f"no decoder.{kind}: {type(recipe).__name__}"
                log.warning(f"{what} draws an image in many steps, and a program would repeat the net for each")
        for name, method, example, ends in parts:
            file = f"{name}.{kind}"
            with progress_bar(file, 1):
                try:
                    with _quiet():
                        _program(_Part(recipe, method).eval(), example, ends, folder / file)
                except OSError:
                    raise
                except Exception as error:  # noqa: BLE001  # torch's have no common base, and a recipe may raise anything
                    (folder / file).unlink(missing_ok=True)
                    log.warning(f"no {file}: {_first_line(error):.200}")
                else:
                    written.append(file)
    return written


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps from the screen what torch logs and prints of a program that it cannot make; the error says it."""
    logging.disable(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _first_line(error: Exception) -> str:
    """What an error says first, without the colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _program(part: nn.Module, example: Tensor, ends: tuple[str, str], path: Path) -> None:
    """Writes one program, of the format that its file's name ends in. Raises ValueError if it computes other numbers."""
    shapes = ({0: torch.export.Dim("batch")},)
    if path.suffix == ".pt2":
        torch.export.save(torch.export.export(part, (example,), dynamic_shapes=shapes), path)
        return
    import onnxruntime

    names: dict[str, Any] = {"input_names": [ends[0]], "output_names": [ends[1]]}
    made = torch.onnx.export(part, (example,), dynamic_shapes=shapes, dynamo=True, verbose=False, **names)
    assert made
    made.save(path)
    three = torch.cat([example.flip(0), example[:1]])  # another number of images than it was traced with
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    answer = torch.from_numpy(session.run(None, {ends[0]: three.numpy()})[0])
    wanted = part(three)
    if (apart := float((answer - wanted).abs().max())) > TOLERANCE * max(1.0, float(wanted.abs().max())):
        raise ValueError(f"onnxruntime and PyTorch differ by {apart:.1g}")


def _hub(run: Run) -> list[str]:
    """The lines at the top of a card by which the Hugging Face hub lists and finds it. Strings are JSON, which is YAML."""
    recipe, quoted = run.recipe, json.dumps
    task = "image-feature-extraction"
    if isinstance(recipe, Classifies):
        task = "image-classification"
    elif isinstance(recipe, Generates):
        task = "unconditional-image-generation"
    measured = [
        f"          - {{type: {quoted(key)}, name: {quoted(key)}, value: {value!r}}}"
        for key, value in sorted(run.metrics.items())
        if key.startswith("test/") and not against(key)[0] and math.isfinite(value)
    ]
    dataset = quoted(Path(run.config.data).name)
    results = [
        "model-index:",
        f"  - name: {quoted(run.name)}",
        "    results:",
        f"      - task: {{type: {task}}}",
        f"        dataset: {{type: {dataset}, name: {dataset}, split: test}}",
        "        metrics:",
        *measured,
    ]
    return [
        "---",
        "library_name: pytorch",
        f"pipeline_tag: {task}",
        f"tags: [aelab, {quoted(run.info.recipe)}]",
        *(results if measured else []),
        "---",
    ]


def _card(run: Run, module: str, programs: list[str]) -> str:
    """The README of the folder."""
    info, recipe = run.info, run.recipe
    name = type(recipe).__name__
    asks = recipe_files.signature(run.recipe_file).takes_classes
    shape = 'tuple(config["image"])' + (', config["classes"]' if asks else "")
    image = ", ".join(map(str, run.image))
    use = []
    if isinstance(recipe, Autoencodes):
        use.append(f"    x = model.decode(model.encode(torch.rand(1, {image})))  # pixels in [0, 1]")
    elif isinstance(recipe, Encodes):
        use.append(f"    z = model.encode(torch.rand(1, {image}))  # pixels in [0, 1]")
    if isinstance(recipe, Generates):
        use.append("    samples = model.decode(model.sample_prior(16))")
    if _asked(recipe):
        use.append('    y = torch.zeros(16, dtype=torch.long)  # the first class of config["class_names"]')
        use.append("    of_a_class = model.decode(model.sample_class(y))")
    if isinstance(recipe, Classifies):
        use.append(f'    logits = model.classify(torch.rand(1, {image}))  # of the classes of config["class_names"]')
    metrics = [
        f"| {key} | {number(value)} | {unit(key)} |"
        for key, value in sorted(info.metrics.items())
        if key.startswith(("test/", "best/", "last/")) and not against(key)[0]
    ]
    how = "onnxruntime" if programs and programs[0].endswith(".onnx") else "`torch.export.load(...).module()`"
    without = f"{', '.join(programs)}: for {how}, without the recipe."
    if isinstance(recipe, Generates) and any(program.startswith("decoder") for program in programs):
        what = (
            f"the last {run.classes} values of a code are its class, one-hot, the others" if _asked(recipe) else "codes"
        )
        without += f" For samples, {what} are drawn as `sample_prior` of `{module}.py` draws them."
    lines = [
        *_hub(run),
        "",
        f"# {info.name}",
        "",
        run.recipe_file.summary,
        "",
        f"Trained on {run.config.data}, images of {'x'.join(map(str, run.image))}; run {info.id}.",
        f"Diagnostics: {info.tags.get('aelab.diagnostics', 'not known')}.",
        "",
        "![](example.png)",
        "",
        f"In this folder, with torch, safetensors and annotated-types installed (`{module}.py` is the recipe):",
        "",
        "```python",
        "import json",
        "import torch",
        "from safetensors.torch import load_file",
        f"from {module} import {name}",
        'config = json.load(open("config.json"))',
        f'model = {name}({shape}, **config["options"])',
        'model.load_state_dict(load_file("model.safetensors"))',
        "model.eval()",
        "with torch.no_grad():",
        *use,
        "```",
        "",
        *([without, ""] if programs else []),
        "| metric | value | unit |",
        "|---|---:|---|",
        *metrics,
        "",
    ]
    return "\n".join(lines)
