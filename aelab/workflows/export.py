"""A model in a folder of its own, to be loaded without aelab."""

import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from shutil import copyfile
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from aelab import figures, recipe_files
from aelab import recipe as interface
from aelab.console import Screen, number
from aelab.errors import UserError
from aelab.evaluation.definitions import against, definition
from aelab.evaluation.evaluate import eval_mode
from aelab.recipe import Autoencodes, Decodes, Encodes, Generates, Recipe
from aelab.tracking import RunInfo, Store
from aelab.workflows import train as runs
from aelab.workflows.train import Opened

SHOWN = 32


def export(
    info: RunInfo, store: Store, screen: Screen, folder: Path, *, programs: bool = False, data_dir: Path | None = None
) -> list[Path]:
    """Writes a run's best weights, configuration, recipe, card and an example picture; with `programs` those of torch.export.

    The recipe is the source that was executed: the one among the run's files may be anyone's, and nobody has read it.
    Returns the files. Raises UserError if the folder holds something already, or cannot be written.
    """
    opened = runs.open_run(info, store, screen, "cpu")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(f"{folder} is not an empty folder; nothing was written.", code=2)
        (folder / "aelab").mkdir(parents=True)
        (folder / opened.page.path.name).write_bytes(opened.page.content)
        copyfile(Path(interface.__file__), folder / "aelab" / "recipe.py")  # what a recipe imports; torch only
        (folder / "aelab" / "__init__.py").write_text(
            '"""What the recipe beside this folder imports."""\n', encoding="utf-8"
        )
        save_file(
            {k: v.clone().contiguous() for k, v in opened.recipe.state_dict().items()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(
            json.dumps(_facts(opened), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        example = _example(opened, data_dir, screen)
        figures.write(folder / "example.png", example)
        names = _programs(opened, folder, screen) if programs else []
        (folder / "README.md").write_text(_card(opened, opened.page.path.stem, names), encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot write {folder}: {error.strerror or error}", code=2) from error
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _facts(opened: Opened) -> dict[str, Any]:
    """What config.json holds."""
    info = opened.info
    return {
        "recipe": info.recipe, "class": type(opened.recipe).__name__, "image": list(opened.image), "classes": opened.classes,
        "options": runs.every_option(opened.config, opened.page), "settings": asdict(opened.config.settings),
        "data": opened.config.data, "data_fingerprint": info.tags.get("aelab.data_fingerprint"), "run_id": info.id,
        "run": info.name, "recipe_sha256": opened.page.sha256, "metrics": dict(info.metrics),
        "versions": {name: metadata.version(name) for name in ("aelab", "torch", "safetensors")},
    }  # fmt: skip


def _example(opened: Opened, data_dir: Path | None, screen: Screen) -> figures.Picture:
    """Reconstructions of test images or, of a recipe that has none, samples."""
    with eval_mode(opened.recipe):
        if isinstance(opened.recipe, Autoencodes):
            return figures.reconstructions(opened.recipe, runs.run_data(opened, data_dir, screen).test.showcase(SHOWN))
        if isinstance(opened.recipe, Generates):
            return figures.grid(opened.recipe.decode(opened.recipe.sample_prior(SHOWN)))
        return figures.grid(runs.run_data(opened, data_dir, screen).test.showcase(SHOWN))


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


def _programs(opened: Opened, folder: Path, screen: Screen) -> list[str]:
    """encoder.pt2: images (B, C, H, W) -> codes (B, D); decoder.pt2: codes -> images; for any number of them."""
    recipe, written = opened.recipe, []
    images = torch.zeros(2, *opened.image)
    with eval_mode(recipe):
        codes = (
            recipe.encode(images)
            if isinstance(recipe, Encodes)
            else recipe.sample_prior(2)
            if isinstance(recipe, Generates)
            else None
        )
        parts: list[tuple[str, nn.Module, Tensor]] = []
        if isinstance(recipe, Encodes):
            parts.append(("encoder.pt2", _Encoder(recipe), images))
        if isinstance(recipe, Decodes) and codes is not None:
            parts.append(("decoder.pt2", _Decoder(recipe), codes))
        for name, module, example in parts:
            shapes = ({0: torch.export.Dim("batch")},)
            torch.export.save(torch.export.export(module.eval(), (example,), dynamic_shapes=shapes), folder / name)
            written.append(name)
    return written


def _card(opened: Opened, module: str, programs: list[str]) -> str:
    """The README of the folder."""
    info, recipe = opened.info, opened.recipe
    name = type(recipe).__name__
    shape = 'tuple(config["image"])' + (', config["classes"]' if recipe_files.asks_for_classes(type(recipe)) else "")
    use = []
    if isinstance(recipe, Autoencodes):
        use.append(
            f"    x = model.decode(model.encode(torch.rand(1, {', '.join(map(str, opened.image))})))  # pixels in [0, 1]"
        )
    elif isinstance(recipe, Encodes):
        use.append(f"    z = model.encode(torch.rand(1, {', '.join(map(str, opened.image))}))  # pixels in [0, 1]")
    if isinstance(recipe, Generates):
        use.append("    samples = model.decode(model.sample_prior(16))")
    figures = [
        f"| {key} | {number(value)} | {known.unit if (known := definition(key)) else ''} |"
        for key, value in sorted(info.metrics.items()) if key.startswith(("test/", "best/")) and not against(key)[0]
    ]  # fmt: skip
    return "\n".join((
        f"# {info.name}", "", opened.page.summary, "",
        f"Trained on {opened.config.data}, images of {'x'.join(map(str, opened.image))}; run {info.id}.",
        f"Health: {info.tags.get('aelab.evaluation.diagnostics', 'not known')}.", "", "![](example.png)", "",
        f"In this folder, with torch, safetensors and annotated-types installed (`{module}.py` is the recipe):", "", "```python",
        "import json", "import torch", "from safetensors.torch import load_file", f"from {module} import {name}",
        "config = json.load(open(\"config.json\"))", f"model = {name}({shape}, **config[\"options\"])",
        "model.load_state_dict(load_file(\"model.safetensors\"))", "model.eval()", "with torch.no_grad():", *use, "```", "",
        *([f"{' and '.join(programs)}: for `torch.export.load(...).module()`, without the recipe.", ""] if programs else []),
        "| metric | value | unit |", "|---|---:|---|", *figures, "",
    ))  # fmt: skip
