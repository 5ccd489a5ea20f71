"""A trainer followed as a run is, with a stand-in for the tracked run."""

from dataclasses import replace

from aelab import recipe_files
from aelab.training import Checkpoints, Settings, Trainer, restore
from aelab.workflows.following import follow
from aelab.workflows.planning import Config, Plan
from aelab.workflows.signals import Interrupted

__all__ = ["Fit", "Interrupted", "Silent", "after", "never"]


class Silent:
    """Stands in for a tracked run: keeps what is logged."""

    id = name = "silent"
    resume_command = "aelab resume silent"

    def __init__(self, folder):
        self.folder, self.points, self.images = folder, {}, []

    def tags(self, tags):
        assert all(tags.values())

    def metrics(self, values, step):
        for key, value in values.items():
            assert (key, step) not in self.points, "no point twice"
            self.points[key, step] = value

    def stepwise_image(self, key, picture, step):
        self.images.append((key, step))


class Fit:
    """One training of a recipe, given by name or path; what is not here is its trainer's."""

    def __init__(self, name, data, folder, settings, options=None, facts=None):
        recipe_file = recipe_files.find(str(name))
        recipe = Plan(Config(str(name), settings, options or {}), recipe_file, data).build()
        self.trainer = Trainer(recipe, data, settings)
        self.run = Silent(folder)
        self.checkpoints = Checkpoints(folder / "checkpoints", facts or {})

    def __getattr__(self, name):
        return getattr(self.trainer, name)

    def fit(self, stop):
        follow(self.trainer, self.run, self.checkpoints, stop)

    def restore(self, last, best):
        restore(self.trainer, last, best)


def settings_of(name, settings, **changes):
    """Settings with the average of the weights and the schedule that a recipe asks for."""
    asked = recipe_files.signature(recipe_files.find(str(name))).settings
    return replace(settings, **{key: asked[key] for key in ("ema", "schedule")} | changes)


def settings(epochs, batch_size=64, seed=0, **how):
    return Settings(epochs, batch_size, seed, "cpu", **how)


def never():
    return False


def after(steps):
    """A stop that is asked for after so many steps."""
    left = iter([False] * (steps - 1))
    return lambda: next(left, True)
