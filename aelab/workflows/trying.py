"""A trial of a recipe before its run begins: what would fail in the training fails here, and leaves no run behind."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor
from torch.optim import Optimizer

from aelab import recipe_files
from aelab.data import Dataset
from aelab.errors import UserError, no_memory, out_of_memory
from aelab.evaluation import eval_mode
from aelab.recipe import (
    Autoencodes,
    Classifies,
    Conditional,
    Decodes,
    Encodes,
    Generates,
    NonFiniteError,
    Phase,
    Recipe,
)
from aelab.recipe_files import RecipeError
from aelab.tracking import valid_metric_name
from aelab.training import Settings

IMAGES = 2  # in the trial, as one image has no variance


def phases_of(recipe: Recipe, path: Path, epochs: int) -> list[Phase]:
    """The phases of a training of `recipe`, from the file `path`.

    Raises RecipeError for anything but a list of phases, and UserError if its options leave no epoch to train.
    """
    phases = _phases(recipe, path, epochs)
    wrong = _wrong(phases) if isinstance(phases, (list, tuple)) else f"phases returns {_described(phases)}"
    if wrong:
        raise RecipeError(
            f"{recipe_files.defined_at(recipe.phases, path)}: {wrong}.",
            "phases has to return a list of one or more Phase(NAME, EPOCHS, STEP, adam=OPTIMIZER).",
        )
    if not any(phase.epochs for phase in phases):
        raise UserError("there is nothing to train: with these options no phase has an epoch.", code=2)
    return list(phases)


def _phases(recipe: Recipe, path: Path, epochs: int) -> list[Phase]:
    """What `phases` returns. Raises RecipeError if the recipe inherits it, but lacks what it needs."""
    if type(recipe).phases is not Recipe.phases:
        return recipe.phases(epochs)
    where = recipe_files.defined_at(type(recipe).__init__, path)
    if getattr(recipe, "lr", None) is None:
        raise RecipeError(f"{where}: the recipe has no learning rate.", "Set self.lr in __init__, or define phases.")
    try:
        return recipe.phases(epochs)
    except (TypeError, ValueError) as error:
        what = f"{where}: Adam does not take the parameters of the recipe with self.lr = {recipe.lr!r:.60}."
        raise RecipeError(what, recipe_files.in_a_line(error)) from error


def _wrong(phases: Sequence[object]) -> str:
    """What is wrong with a list that should be one of phases; empty if nothing is."""
    for phase in phases:
        if not isinstance(phase, Phase):
            return f"phases returns a list with {_described(phase)} in it"
        if not isinstance(phase.epochs, Integral) or phase.epochs < 0:
            return f"phase '{phase.name}' has {phase.epochs!r:.60} as its number of epochs"
        if not callable(phase.step):
            return f"phase '{phase.name}' has {_described(phase.step)} as its step"
        for name, optimizer in phase.optimizers.items():
            if not isinstance(optimizer, Optimizer):
                return f"phase '{phase.name}' has {_described(optimizer)} as its optimizer '{name}'"
    return "" if phases else "phases returns an empty list"


def try_recipe(recipe: Recipe, path: Path, data: Dataset, settings: Settings) -> None:
    """Tries the loss, a step of each phase, and the decoding of codes, with a few images, on a copy of the recipe in `path`.

    Raises RecipeError for an error in its code or a result of the wrong type or shape, and UserError if a layer normalises
    over a batch of one image, or the store would refuse the name of a metric. Weights and random state stay as they are.
    """
    images = min(settings.batch_size, len(data.train), IMAGES)
    x, y = replace(data.train, device=next(recipe.parameters()).device).batch(slice(images))
    with eval_mode(recipe):
        try:
            tried = copy.deepcopy(recipe)
            _try_loss(tried, x, y, path)
            _try_steps(tried.train(), x, y, path, settings.epochs)
            _try_codes(tried.eval(), x, path)
        except UserError:
            raise
        except (Exception, SystemExit) as error:
            if out_of_memory(error):
                raise no_memory() from error
            if "more than 1 value per channel" in str(error):
                raise UserError(
                    f"--batch-size 1: {path.stem} normalises over the images of a batch, and one image has no variance.",
                    "Use --batch-size 2 or more.",
                    code=2,
                ) from error
            if "Kernel size can't be greater" in str(error):
                _, height, width = data.image
                raise UserError(
                    f"images of {height} x {width} pixels are too small for the convolutions of {path.stem}.",
                    "If it has a --net mlp, take that; or another recipe.",
                    code=2,
                ) from error
            if fault := recipe_files.recipe_error(error):
                raise fault from error  # any other error is ours: the training will report it


def _try_loss(recipe: Recipe, x: Tensor, y: Tensor, path: Path) -> None:
    returned = recipe.loss(x, y)
    where = recipe_files.defined_at(recipe.loss, path)
    pair = isinstance(returned, tuple) and len(returned) == 2
    if not pair or not _is_scalar(returned[0]) or not _are_terms(returned[1]):
        raise RecipeError(
            f"{where}: loss returns {_described(returned)}.",
            "It has to return two things: the loss, a tensor with one number, and a dict of such tensors, its terms.",
        )
    if "loss" in returned[1]:
        raise RecipeError(
            f"{where}: loss returns a term called 'loss'.", "Give it another name: the loss itself has this one."
        )
    check_names(returned[1], where)
    measured = [name for name, can in (("mse", Autoencodes), ("error", Classifies)) if isinstance(recipe, can)]
    names = ["loss", *returned[1], *measured]
    names += [f"{name.removesuffix('mse')}sse" for name in names if name.endswith("mse")]
    if recipe.monitor is not None and recipe.monitor not in names:
        raise RecipeError(
            f"{path.name}: monitor = {recipe.monitor!r:.60} is not a metric of the validation images where less is better.",
            f"It has to be one of: {', '.join(names)}; or None, to keep the last weights.",
        )


def _try_steps(recipe: Recipe, x: Tensor, y: Tensor, path: Path, epochs: int) -> None:
    with torch.enable_grad():
        for phase in recipe.phases(epochs):
            parts = [torch.cat([part, part]) if phase.unlabelled else part for part in (x, y)]
            if (
                getattr(phase.step, "__func__", None) is Recipe.training_step
                and not recipe.loss(*parts)[0].requires_grad
            ):
                raise RecipeError(
                    f"{recipe_files.defined_at(recipe.loss, path)}: loss returns a tensor without a gradient.",
                    "It must come from the weights by operations of torch, without detach(), no_grad() or item().",
                )
            where = recipe_files.defined_at(phase.step, path)
            with suppress(NonFiniteError):
                metrics = phase.step(*parts, **phase.optimizers)
                if not _are_terms(metrics):
                    raise RecipeError(
                        f"{where}: the step of phase '{phase.name}' returns {_described(metrics)}.",
                        "It has to return a dict of tensors with one number each: the metrics of the step.",
                    )
                check_names(metrics, where)


def _try_codes(recipe: Recipe, x: Tensor, path: Path) -> None:
    codes = {"encode": recipe.encode(x)} if isinstance(recipe, Encodes) else {}
    if isinstance(recipe, Generates):
        codes["sample_prior"] = recipe.sample_prior(len(x))
    if isinstance(recipe, Conditional) and recipe.conditional:
        codes["sample_class"] = recipe.sample_class(torch.zeros(len(x), dtype=torch.long, device=x.device))
    for name, z in codes.items():
        if not isinstance(z, Tensor) or z.ndim != 2 or len(z) != len(x):
            where = recipe_files.defined_at(getattr(recipe, name), path)
            what = f"{where}: {name} returns {_described(z)} for {len(x)} images."
            raise RecipeError(what, f"It has to return their codes, a tensor of shape ({len(x)}, D).")
    if isinstance(recipe, Decodes):
        for name, z in codes.items():
            given = f"{name}'s codes of shape {tuple(z.shape)}"
            try:
                images = recipe.decode(z)
            except Exception as error:
                if out_of_memory(error) or not (fault := recipe_files.recipe_error(error)):
                    raise
                raise RecipeError(*str(fault).split("\n")[:2], f"Here decode was given {given}.") from error
            if not isinstance(images, Tensor) or images.shape != x.shape:
                where = recipe_files.defined_at(recipe.decode, path)
                what = f"{where}: decode returns {_described(images)} for {given}."
                raise RecipeError(what, f"It has to return images, here a tensor of shape {tuple(x.shape)}.")


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def _are_terms(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) and _is_scalar(term) for key, term in value.items())


def _described(value: object) -> str:
    """What a value is, in a few words: its type, the shape of a tensor, the parts of a pair or a dict."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}" if value.ndim else "a tensor with one number"
    if isinstance(value, Mapping):
        return f"a dict {{{', '.join(f'{key!r}: {_described(part)}' for key, part in value.items())}}}"[:160]
    if isinstance(value, tuple):
        return " and ".join(map(_described, value))[:160] or "an empty tuple"
    kind = type(value).__name__
    return "nothing" if value is None else f"a{'n' * kind.startswith(('i', 'o'))} {kind}"


def check_names(metrics: Mapping[str, object], of: str) -> None:
    """Raises UserError if the store would refuse the name of one of a recipe's metrics."""
    for name in metrics:
        if not valid_metric_name(f"train/{name}"):
            raise UserError(
                f"{of}: a metric cannot be called '{name}'.",
                "The name that a recipe gives it may hold letters, digits, spaces and _ - . : / only, at most 200.",
            )
