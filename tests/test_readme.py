"""The Python that README.md and CONTRIBUTING.md show is run, on small data and for few steps."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import aelab
from aelab import recipe_files
from aelab.recipe import Autoencodes

ROOT = Path(__file__).parent.parent
SMALLER = {  # what would take minutes
    "latent_dim=10, epochs=5": 'latent_dim=10, data="digits", max_steps=2',
    "run.evaluate()": "run.evaluate(plain=True)",
    "latent_dim=[2, 5, 10], seed=range(3)": 'latent_dim=[2], seed=range(2), data="digits", max_steps=2',
    "epochs=20, batch_size=64": "epochs=2, batch_size=64",
}


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def typed(block, replaced):
    """Runs a block as it would be typed, with these words replaced; returns its names, and each expression with its value."""
    for old, new in replaced.items():
        assert block.count(old) == 1, f"README.md no longer says {old}"
        block = block.replace(old, new)
    names, values = {"__name__": "readme"}, {}
    if "match" in block:
        exec(block, names)
        return names, values
    for line in block.splitlines():
        code = line.split("  #")[0]
        try:
            expression = compile(code, "README.md", "eval")
        except SyntaxError:
            exec(code, names)
        else:
            values[code] = eval(expression, names)
    return names, values


def test_a_run_in_python():
    names, values = typed(blocks("README.md")[0], dict(list(SMALLER.items())[:3]))
    images, x = names["images"], names["x"]
    assert images.shape == x.shape == (16, 1, 8, 8)
    assert names["z"].shape == (16, 10)
    sample, again, metrics, figures, runs, table = values.values()
    assert sample.shape == (64, 1, 8, 8)
    assert torch.equal(again, x)
    assert metrics["test/mse"] > 0
    assert isinstance(metrics, pd.Series)
    assert all(isinstance(figure, Figure) for figure in figures.values())
    assert list(runs["name"]) == [names["run"].name]
    assert list(table["latent_dim"]) == [2]
    assert set(table["runs"]) == {2}


def test_a_trainer_without_store_terminal_or_file(here, capsys):
    names, _ = typed(blocks("README.md")[1], dict(list(SMALLER.items())[3:]))
    out, err = capsys.readouterr()
    assert re.fullmatch(r"epoch 1: -\d+\.\d\d nats\nepoch 2: -\d+\.\d\d nats\n", out)
    assert not err
    assert not list(here.iterdir())
    assert names["losses"]
    assert all(map(math.isfinite, names["losses"]))
    sizes = ", ".join(f"{len(split):,}" for split in (names["data"].train, names["data"].val))
    assert f"{sizes} and {len(names['data'].test)} images of 8 x 8" in blocks("README.md")[1]


def test_all_of_the_python_in_the_readme_is_run():
    assert len(blocks("README.md")) == 2


@pytest.mark.parametrize("name", ["resume", "evaluate", "reconstruct", "sample", "interpolate", "compare", "export"])
def test_what_the_readme_says_to_look_up_is_there(name):
    assert f"`{name}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert getattr(aelab, name).__doc__


def test_the_recipe_of_the_contributing_guide(here):
    (block,) = blocks("CONTRIBUTING.md")
    (here / "mine.py").write_text(block)
    data = aelab.open_data("digits")
    recipe_file = recipe_files.trust("./mine.py")
    recipe = recipe_files.build(recipe_file, data.image, {"latent_dim": 2})
    for _ in aelab.Trainer(recipe, data, aelab.Settings(epochs=1, batch_size=512)):
        pass
    assert isinstance(recipe, Autoencodes)
    assert recipe.decode(recipe.encode(data.test.showcase(3))).shape == (3, *data.image)
