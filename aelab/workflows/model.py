"""A recipe with its kept weights, and the methods to use it: what `aelab.load` gives, and what MLflow serves."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch import Tensor

from aelab.errors import UserError, checked, did_you_mean, similar
from aelab.evaluation import eval_mode
from aelab.recipe import (
    Autoencodes,
    Classifies,
    Conditional,
    Decodes,
    Discriminates,
    Encodes,
    Generates,
    ImageShape,
    Recipe,
)
from aelab.recipe_files import RecipeFile
from aelab.tracking import RunInfo
from aelab.training import LARGEST_SEED
from aelab.workflows.planning import Config

BLOCK = 250  # images at once
SAMPLES = 64  # by default
OF_EACH_CLASS = 10  # samples, by default
DRAWS = 64  # of the noise that a discriminator may add to what it sees
MOST_NAMED = 20  # classes in a message


@dataclass(frozen=True)
class Model:
    """A recipe with its kept weights. Images are (N, C, H, W) with pixels in [0, 1], and codes (N, D), both float32.

    Results are on the CPU; numpy arrays are accepted too.
    """

    info: RunInfo  # what the store knows about its run
    config: Config
    recipe_file: RecipeFile
    recipe: Recipe
    image: ImageShape
    classes: int  # their number; 0 if the data have none

    @property
    def id(self) -> str:
        """MLflow's id of the run, 32 hexadecimal digits."""
        return self.info.id

    @property
    def name(self) -> str:
        """The name of the run, such as vae-3f0c1a."""
        return self.info.name

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, by number."""
        raise NotImplementedError

    @property
    def conditional(self) -> bool:
        """Whether the recipe draws images of a class that is asked for."""
        return isinstance(self.recipe, Conditional) and self.recipe.conditional

    @property
    def could_be_conditional(self) -> bool:
        """Whether the recipe could have learned to draw images of a class that is asked for, but was not told to."""
        return isinstance(self.recipe, Conditional) and not self.conditional and self.classes > 1

    @property
    def conditional_command(self) -> str:
        """The command that trains this recipe, or gan if this one cannot, to draw a class of the same data on request."""
        recipe = self.info.recipe if self.could_be_conditional else "gan"
        data = "" if self.config.data == "auto" else f" --data {shlex.quote(self.config.data)}"
        return f"aelab train {recipe} --conditional{data}"

    @cached_property
    def device(self) -> torch.device:
        return next(self.recipe.parameters()).device

    def encode(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> codes (N, D), the mean of a posterior. Raises UserError if the recipe has no encoder."""
        if not isinstance(self.recipe, Encodes):
            raise UserError(f"{self.name} cannot encode: {self.info.recipe} has no encoder.", code=2)
        return self._through(self.recipe.encode, self._images(images))

    def decode(self, codes: Tensor) -> Tensor:
        """Codes (N, D) -> images (N, C, H, W). Raises UserError if the recipe has no decoder."""
        if not isinstance(self.recipe, Decodes):
            raise UserError(f"{self.name} cannot decode: {self.info.recipe} has no decoder.", code=2)
        z = self._tensor(codes)
        if z.ndim != 2:
            raise UserError(f"{self.name} takes codes (N, D), not {tuple(z.shape)}.", code=2)
        return self._through(self.recipe.decode, z)

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> their reconstructions. Raises UserError if the recipe does not reconstruct."""
        if not isinstance(self.recipe, Autoencodes):
            raise UserError(f"{self.name} does not reconstruct images: {self.info.recipe} is no autoencoder.", code=2)
        recipe = self.recipe
        return self._through(lambda x: recipe.decode(recipe.encode(x)), self._images(images))

    def classify(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> the probabilities (N, K) of their classes. Raises UserError if the recipe does not classify."""
        recipe = self.recipe
        if not isinstance(recipe, Classifies):
            raise UserError(f"{self.name} does not classify images: {self.info.recipe} is no classifier.", code=2)
        return self._through(lambda x: recipe.classify(x).softmax(1), self._images(images))

    def discriminate(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) -> the logits (N,) of the discriminator D, means over DRAWS draws of the noise that it may add.

        Raises UserError if the recipe has no discriminator, or one that asks for the class too.
        """
        recipe = self.recipe
        if not isinstance(recipe, Discriminates):
            raise UserError(f"{self.name} does not discriminate: {self.info.recipe} has no discriminator.", code=2)
        if self.conditional:
            raise UserError(f"{self.name} does not discriminate images alone: its D asks for their class too.", code=2)

        def logits(x: Tensor) -> Tensor:
            y = torch.full((len(x),), -1, device=x.device)
            return torch.stack([recipe.discriminate(x, y).flatten() for _ in range(DRAWS)]).mean(0)

        return self._through(logits, self._images(images))

    @checked
    def sample(
        self,
        n: Annotated[int, Ge(1)] | None = None,
        *,
        label: str | int | None = None,
        seed: Annotated[int, Interval(ge=0, le=LARGEST_SEED)] = 0,
    ) -> Tensor:
        """n samples (n, C, H, W), by default 64, decoded from codes drawn with `seed`.

        `label` is the class that they are of, by its name or its number, or "all": then n of each class, by default 10, one
        class after the other, (K n, C, H, W). Without a label a conditional recipe draws the class too. Raises UserError if
        the recipe has no prior, is not conditional, or if there is no such class.
        """
        recipe = self.recipe
        if not isinstance(recipe, Generates):
            raise UserError(f"{self.name} cannot sample: {self.info.recipe} has no prior to draw codes from.", code=2)
        if label is None:
            with eval_mode(recipe, seed):
                return recipe.decode(recipe.sample_prior(n or SAMPLES)).cpu()
        if not (isinstance(recipe, Conditional) and recipe.conditional):
            what = f"{self.name} draws no class on request."
            if self.classes < 2:
                raise UserError(what, f"{self.config.data} has no classes.", code=2)
            raise UserError(what, f"Train one that does: {self.conditional_command}", code=2)
        if label == "all":
            y = torch.arange(self.classes).repeat_interleave(n or OF_EACH_CLASS)
        else:
            y = torch.full((n or SAMPLES,), self.class_number(label))
        with eval_mode(recipe, seed):
            codes = recipe.sample_class(y.to(self.device))
            return torch.cat([recipe.decode(part).cpu() for part in _blocks(codes)])

    def class_number(self, label: str | int) -> int:
        """The number of a class, from 0 to K - 1, by its name or by that number. Raises UserError if there is none."""
        if isinstance(label, int) and 0 <= label < self.classes:
            return label
        names = list(self.class_names)
        if str(label) in names:
            return names.index(str(label))
        known = ", ".join(names[:MOST_NAMED]) + ", ..." * (len(names) > MOST_NAMED)
        hint = did_you_mean(similar(str(label), names))
        raise UserError(f"{self.config.data} has no class '{label!s:.60}'.{hint}", f"It has: {known}", code=2)

    def _images(self, images: Tensor) -> Tensor:
        x = self._tensor(images)
        if x.dtype == torch.uint8:
            raise UserError("images of uint8 are refused: pixels lie in [0, 1] here; divide them by 255.", code=2)
        if tuple(x.shape[1:]) != tuple(self.image):
            shape = " x ".join(map(str, self.image))
            raise UserError(f"{self.name} takes images (N, C, H, W) of {shape}, not {tuple(x.shape)}.", code=2)
        return x

    def _through(self, function: Any, values: Tensor) -> Tensor:
        try:
            with eval_mode(self.recipe):
                return torch.cat([function(part.to(self.device).float()).cpu() for part in _blocks(values)])
        except RuntimeError as error:
            raise UserError(
                f"{self.name} does not take {tuple(values.shape)}: {str(error).splitlines()[0]}", code=2
            ) from error

    def _tensor(self, values: Any) -> Tensor:
        """A tensor of what was passed: a tensor, an array, nested lists."""
        try:
            return torch.as_tensor(values)
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(f"{self.name} takes tensors or arrays, not {values!r:.60}.", code=2) from error


def _blocks(values: Tensor) -> Iterator[Tensor]:
    yield from torch.split(values, BLOCK)
