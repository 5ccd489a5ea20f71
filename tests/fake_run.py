"""A run for figures that nobody trained: a recipe with weights of the test's choice, on images of the test's choice."""

from types import SimpleNamespace

import torch

from aelab.data import Dataset, Split
from aelab.recipe import Recipe


class Identity(Recipe):
    """The code is the image."""

    def __init__(self, image=(1, 4, 4)):
        super().__init__()
        self.image, self.weight = image, torch.nn.Parameter(torch.ones(2))

    def encode(self, x):
        return x.flatten(1)

    def decode(self, z):
        return z.view(-1, *self.image)


def dataset(image=(1, 4, 4), n=40, seed=0):
    """Random pixels, in three classes; each split has n images."""
    draw = torch.Generator().manual_seed(seed)
    splits = [
        Split(torch.randint(256, (n, *image), generator=draw, dtype=torch.uint8), torch.arange(n) % 3) for _ in range(3)
    ]
    return Dataset("noise", "memory", ("a", "b", "c"), *splits, 0, f"{seed}")


class FakeRun:
    """What a figure asks of a run, answered from what the test gave."""

    classes, conditional = 3, False

    def __init__(self, recipe=None, name="some-run", data=None, metrics=None, of="identity", seconds=7.0, **params):
        self.recipe, self.name = recipe or Identity(), name
        self.image = self.recipe.image
        self._data = data or dataset(self.recipe.image)
        metrics = metrics or {}
        validation = {key.removeprefix("best/"): value for key, value in metrics.items() if key.startswith("best/")}
        params = {key: str(value) for key, value in {"seed": 0, "split_seed": 0, **params}.items()}
        tags = {"aelab.data_fingerprint": self._data.fingerprint}
        self.info = SimpleNamespace(
            recipe=of, params=params, metrics=metrics, tags=tags, validation=validation, seconds=seconds
        )
        self.config = SimpleNamespace(data=self._data.name)

    def data(self):
        return self._data

    def encode(self, images):
        return self.recipe.encode(images).detach()

    def decode(self, codes):
        return self.recipe.decode(codes).detach()

    def reconstruct(self, images):
        return self.recipe.decode(self.recipe.encode(images)).detach()

    def corrupt(self, images, *, seed=0):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.recipe.corrupt(images)

    def pca(self, dimension):
        x = self._data.train.images.flatten(1).double() / 255
        return x.mean(0), torch.linalg.svd(x - x.mean(0), full_matrices=False).Vh[:dimension]
