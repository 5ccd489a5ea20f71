"""Executes recipe files: loads their class, reads its signature, and builds recipes with options."""

import importlib.util
import inspect
import shlex
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, get_type_hints

from aelab import aliases
from aelab.errors import UserError, did_you_mean, no_memory, out_of_memory, similar
from aelab.recipe_files.option import SETTINGS, Option, Signature, option
from aelab.recipe_files.recipe_file import RecipeFile
from aelab.recipe_files.source import read

if TYPE_CHECKING:
    from aelab.recipe import ImageShape, Recipe


MODULE_PREFIX = "aelab_recipe_"  # of the modules that recipe files are executed as


def signature(recipe_file: RecipeFile) -> Signature:
    """The signature of a recipe: read from its source if that is unambiguous, else by executing it.

    Raises UserError if the file cannot be loaded or has an option without a type or a default.
    """
    return read(recipe_file) or signature_of_class(load(recipe_file))


class RecipeError(UserError):
    """An error in the code of a recipe: its file, line and function, and what Python says. `__cause__` has the traceback."""


def recipe_error(error: BaseException) -> RecipeError | None:
    """The place in a recipe file where an error was raised, or None if no recipe had a part in it.

    If the recipe called another module of the user's, it is the place in that one.
    """
    frames = _from_the_recipe_on(error)
    if not frames:
        return None
    recipe, place = frames[0], frames[-1]
    found = RecipeError(
        f"{_shown_path(place.filename)}, line {place.lineno}, in {place.name}: {place.line}",
        in_a_line(error),
        *_about_neighbours(error, recipe.filename),
    )
    found.__cause__ = error
    return found


def in_a_line(error: BaseException) -> str:
    """The type of an error, and what it says, in one line."""
    return ": ".join(filter(None, [type(error).__name__, _first_line(error)]))


def _first_line(error: BaseException) -> str:
    """The first line of what an error says, followed by dots if it says more."""
    text = str(error).strip()
    first = text.partition("\n")[0][:200].rstrip()
    return first + " ..." * (first != text)


def defined_at(function: object, path: Path) -> str:
    """The file and the line where a function begins; the name of the recipe's file at `path` if that is not known."""
    code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
    return f"{_shown_path(code.co_filename)}, line {code.co_firstlineno}" if code else path.name


def _from_the_recipe_on(error: BaseException) -> list[traceback.FrameSummary]:
    """Of the calls that led to an error, those in the recipe, and behind them those in other files of the user's."""
    found: list[traceback.FrameSummary] = []
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if _is_of_recipe(frame) or (found and _is_of_user(code.co_filename)):
            found.append(traceback.FrameSummary(code.co_filename, line, code.co_name))
    return found


def _is_of_recipe(frame: FrameType) -> bool:
    name = frame.f_globals.get("__name__")
    return isinstance(name, str) and name.startswith(MODULE_PREFIX)


def _is_of_user(path: str) -> bool:
    """Whether a file of Python is neither part of Python, nor of an installed package, nor of aelab."""
    import sysconfig  # only when something has gone wrong

    places = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    libraries = [*map(Path, places), Path(__file__).parents[1]]
    file = Path(path)
    installed = {"site-packages", "dist-packages"} & {*file.parts}
    return not (path.startswith("<") or installed or any(map(file.is_relative_to, libraries)))


def _about_neighbours(error: BaseException, path: str) -> list[str]:
    """That a recipe is one file, if the module that was not found lies beside the one at `path`."""
    folder = Path(path).parent
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if not name or not ((folder / f"{name}.py").is_file() or (folder / name).is_dir()):
        return []
    return [
        f"A recipe is one file. To let it import others: PYTHONPATH={shlex.quote(_shown_path(str(folder)))} aelab ..."
    ]


def _shown_path(path: str) -> str:
    """A path relative to the working folder if it is below it."""
    with suppress(ValueError, OSError):
        return str(Path(path).relative_to(Path.cwd()))
    return path


class _Source(SourceFileLoader):
    """Executes the source that was read, never a cached bytecode file beside it."""

    def __init__(self, name: str, recipe_file: RecipeFile) -> None:
        super().__init__(name, str(recipe_file.path))
        self.content = recipe_file.content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.content, self.path)
        return code


def load(recipe_file: RecipeFile) -> "type[Recipe]":
    """Executes a recipe file and returns the one Recipe that it defines.

    Raises RecipeError if it cannot be executed, and UserError if it does not define one Recipe.
    """
    from aelab.recipe import Recipe

    _define_old_names(Recipe)
    module_name = f"{MODULE_PREFIX}{recipe_file.name}_{recipe_file.sha256[:8]}"
    loader = _Source(module_name, recipe_file)
    spec = importlib.util.spec_from_loader(module_name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a recipe may even call sys.exit
        del sys.modules[module_name]
        path = str(recipe_file.path)
        place = next(reversed(_from_the_recipe_on(error)), None)  # none of an error of syntax
        file = "" if place is None or place.filename == path else f"{_shown_path(place.filename)}, "
        why = f"{file}line {place.lineno}: {in_a_line(error)}" if place else in_a_line(error)
        raise RecipeError(f"recipe {path} cannot be loaded.", why, *_about_neighbours(error, path)) from error
    own = {item for item in vars(module).values() if inspect.isclass(item) and item.__module__ == module_name}
    recipes = [item for item in own if issubclass(item, Recipe)]
    if len(recipes) != 1:
        raise UserError(
            f"{recipe_file.path} defines {len(recipes)} subclasses of aelab.recipe.Recipe; a recipe's file has one."
        )
    for old, new in aliases.RECIPE.items():
        if old in vars(recipes[0]) and new not in vars(recipes[0]):
            setattr(recipes[0], new, vars(recipes[0])[old])
    return recipes[0]


def _define_old_names(recipe: "type[Recipe]") -> None:
    """Lets a recipe file of version 0.1.0 import and call things by the names that they had then."""
    module = sys.modules[recipe.__module__]
    for old, new in aliases.RECIPE_MODULE.items():
        setattr(module, old, getattr(module, new))
    for old, new in aliases.RECIPE.items():
        if hasattr(recipe, new):
            setattr(recipe, old, getattr(recipe, new))


def _options(recipe: "type[Recipe]") -> list[Option]:
    """The keyword arguments of a recipe's constructor. Raises UserError for one without a type or a default."""
    where = defined_at(recipe.__init__, Path(recipe.__name__))
    try:
        hints = get_type_hints(recipe.__init__, include_extras=True)
    except NameError as error:
        raise UserError(f"{where}: the type of an option is not known when it runs: {error}") from error
    found = []
    for parameter in inspect.signature(recipe).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        if parameter.name not in hints or parameter.default is parameter.empty:
            raise UserError(f"{where}: the option {parameter.name} needs a type and a default.")
        found.append(option(where, parameter.name, hints[parameter.name], parameter.default))
    return found


def signature_of_class(recipe: "type[Recipe]") -> Signature:
    """The signature of a recipe that has been loaded."""
    settings = {name: getattr(recipe, name) for name in SETTINGS}
    doc = sys.modules[recipe.__module__].__doc__ or ""
    classes = inspect.signature(recipe).parameters.get("classes")
    needs_classes = (
        classes is not None
        and classes.default is classes.empty
        and classes.kind
        in (
            classes.POSITIONAL_ONLY,
            classes.POSITIONAL_OR_KEYWORD,
        )
    )
    return Signature(tuple(_options(recipe)), settings, doc, classes is not None, needs_classes)


def build(recipe_file: RecipeFile, image: "ImageShape", values: Mapping[str, Any], classes: int = 0) -> "Recipe":
    """The recipe with these options, for images of this shape (C, H, W) and, if it takes it, this number of classes.

    Raises UserError if it does not accept them. Unknown options and values out of range are refused before it is executed.
    """
    expected = signature(recipe_file)
    _check(recipe_file.name, expected.options, values)
    recipe = load(recipe_file)
    channels, height, width = image
    default = next((option.default for option in expected.options if option.name == "latent_dim"), None)
    size = values.get("latent_dim", 0)  # a run's values are all there, also those that nobody asked for
    if not recipe.overcomplete and size != default and size > channels * height * width:
        raise UserError(
            f"--latent-dim {values['latent_dim']} is more than the {channels * height * width} values of an image "
            f"({channels} x {height} x {width}).",
            f"Use --latent-dim {channels * height * width} or less. "
            "A recipe of your own allows more with overcomplete = True in its class.",
            code=2,
        )
    if expected.needs_classes and classes < 2:
        raise UserError(
            f"{recipe_file.name} classifies, but these images have no classes.",
            "In a folder of pictures each folder within it is a class.",
            code=2,
        )
    try:
        return recipe(image, *[classes] * expected.takes_classes, **values)
    except Exception as error:
        if out_of_memory(error):
            raise no_memory() from error
        fault = recipe_error(error)
        if fault and not isinstance(error, ValueError):
            raise fault from error
        raise UserError(f"{recipe_file.name} does not accept these options: {_first_line(error)}", code=2) from error


def check(recipe_file: RecipeFile, values: Mapping[str, Any]) -> None:
    """Raises UserError for an unknown option, or a value that the option does not accept. The file is not executed."""
    _check(recipe_file.name, signature(recipe_file).options, values)


def _check(name: str, options: Sequence[Option], values: Mapping[str, Any]) -> None:
    """Raises UserError for an unknown option, or a value that the option does not accept."""
    known = {option.name: option for option in options}
    for key, value in values.items():
        if key not in known:
            hint = did_you_mean(similar(key, known)) or f" It has: {', '.join(known)}."
            raise UserError(f"{name} has no option '{key}'.{hint}", code=2)
        try:
            known[key].check(value)
        except ValueError as error:
            raise UserError(f"{name} does not accept these options: {key}: {error}", code=2) from error
