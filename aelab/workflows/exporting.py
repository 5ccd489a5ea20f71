"""Exports a model into a folder from which it is loaded without aelab."""

import json
import logging
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aelab import networks, recipe_files
from aelab import recipe as interface
from aelab.errors import UserError, checked
from aelab.evaluation import eval_mode
from aelab.figures import Picture, grid, reconstruction_grid, write
from aelab.metrics import against, number
from aelab.progress_bar import progress_bar
from aelab.recipe import Autoencodes, Completes, Decodes, Encodes, Generates, Recipe
from aelab.workflows.card import unit
from aelab.workflows.loading import load
from aelab.workflows.planning import all_options
from aelab.workflows.run import Run

log = logging.getLogger(__name__)

EXAMPLES = 32  # images in the example picture


@checked
def export(
    run: str | Path | Run,
    folder: Path | str,
    *,
    programs: bool = False,
    data_dir: Path | str | None = None,
    tracking_uri: str | None = None,
) -> list[Path]:
    """Writes a run's weights, configuration, recipe, card and an example picture into a new or empty folder.

    With `programs`, encoder and decoder are also written as torch.export programs, which need no recipe; not the decoder of a
    recipe whose codes are the random numbers of a sampler, as a program would hold each of its steps. The recipe is the
    source on this machine that was executed, not the copy among the run's files, which may come from anyone. Returns the
    files. Raises UserError if the folder is not empty or cannot be written.
    """
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
        save_file(weights, folder / "model.safetensors")
        facts = json.dumps(_facts(opened), indent=2, ensure_ascii=False)
        (folder / "config.json").write_text(facts + "\n", encoding="utf-8")
        write(folder / "example.png", _example(opened))
        names = _programs(opened, folder) if programs else []
        (folder / "README.md").write_text(_card(opened, recipe_file.path.stem, names), encoding="utf-8")
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


def _example(run: Run) -> Picture:
    """A picture of reconstructions of test images, else of samples, else of test images, whichever the recipe has."""
    with eval_mode(run.recipe):
        if isinstance(run.recipe, Autoencodes):
            return reconstruction_grid(run.recipe, run.data().test.showcase(EXAMPLES))
        if isinstance(run.recipe, Generates):
            return grid(run.recipe.decode(run.recipe.sample_prior(EXAMPLES)))
        return grid(run.data().test.showcase(EXAMPLES))


class _Encoder(nn.Module):
    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.recipe, Encodes)
        return self.recipe.encode(x)


class _Decoder(_Encoder):
    def forward(self, x: Tensor) -> Tensor:
        assert isinstance(self.recipe, Decodes)
        return self.recipe.decode(x)


def _programs(run: Run, folder: Path) -> list[str]:
    """Writes encoder.pt2, images (B, C, H, W) -> codes (B, D), and decoder.pt2, codes -> images, for any B."""
    recipe, written = run.recipe, []
    images = torch.zeros(2, *run.image)
    with eval_mode(recipe):
        parts: list[tuple[str, nn.Module, Tensor]] = []
        codes = None
        if isinstance(recipe, Encodes):
            codes = recipe.encode(images)
            parts.append(("encoder.pt2", _Encoder(recipe), images))
        elif isinstance(recipe, Generates):
            codes = recipe.sample_prior(2)
        if isinstance(recipe, Decodes) and codes is not None:
            if not isinstance(recipe, Completes):
                parts.append(("decoder.pt2", _Decoder(recipe), codes))
            else:
                name = type(recipe).__name__
                log.warning(
                    f"no decoder.pt2: {name} draws an image in many steps, and a program would repeat the net for each"
                )
        for name, module, example in parts:
            shapes = ({0: torch.export.Dim("batch")},)
            with progress_bar(name, 1):
                torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=shapes), folder / name)
            written.append(name)
    return written


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
    metrics = [
        f"| {key} | {number(value)} | {unit(key)} |"
        for key, value in sorted(info.metrics.items())
        if key.startswith(("test/", "best/", "last/")) and not against(key)[0]
    ]
    without = f"{' and '.join(programs)}: for `torch.export.load(...).module()`, without the recipe."
    lines = [
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
