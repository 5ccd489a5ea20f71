"""200 steps of some recipes, run by torchrun or alone. Losses and last weights go to a file for each recipe.

torchrun --nproc-per-node 2 group_steps.py FOLDER float64 gan "vae net=mlp" ...
"""

import sys
from pathlib import Path

import torch

import aelab
from aelab import recipe_files
from aelab.data import Split, open_data
from aelab.training import Group, Settings, StepDone, Trainer, differences, torchrun
from aelab.workflows.planning import Config, Plan

folder, precision, *names = sys.argv[1:]
assert aelab.__version__
if precision == "float64":
    torch.set_default_dtype(torch.float64)
    grey = Split.batch

    def precise(self, index):
        x, y = grey(self, index)
        return (255 * x.double()).round() / 255, y

    Split.batch = precise

launched = torchrun()
group = Group(launched) if launched else None
data = open_data("digits")
for name in names:
    word, *typed = name.split()
    recipe_file = recipe_files.find(word)
    known = {option.name: option for option in recipe_files.signature(recipe_file).options}
    given = dict(each.split("=") for each in typed)
    epochs = int(given.pop("epochs", 20))
    options = {key: known[key].parse(text) for key, text in given.items()}
    own = recipe_files.signature(recipe_file).settings
    defaults = {key: own[key] for key in ("batch_size", "ema", "schedule", "warmup")}
    augment = "flip,shift,crop" if word == "stacked" else None
    settings = Settings(epochs=epochs, max_steps=200, augment=augment, **defaults)
    recipe = Plan(Config(word, settings, options), recipe_file, data).build()
    losses, differing = [], differences(recipe, data, settings, group) if group else ""
    if not differing:
        losses = [
            e.means["loss"] for e in Trainer(recipe, data, settings, group) if isinstance(e, StepDone) and e.means
        ]
    if not group or not group.rank:
        torch.save((differing, torch.tensor(losses).double(), recipe.state_dict()), Path(folder) / f"{name}.pt")
if group:
    group.leave()
