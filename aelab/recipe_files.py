"""Recipes by name or path: found without being run, loaded one at a time, their signatures read as options.

A recipe is code. It is executed if it is built in, if it is in ./recipes, or if the user typed its path: in this command, or,
the same bytes at the same place, in an earlier one. That a run names it is no reason.
"""

import ast
import hashlib
import importlib.util
import inspect
import math
import os
import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin, get_type_hints

import platformdirs

from aelab import aliases
from aelab.errors import UserError, no_memory, out_of_memory, visible
from aelab.files import small

if TYPE_CHECKING:
    from aelab.recipe import ImageShape, Recipe


@dataclass(frozen=True)
class RecipeFile:
    """A recipe's file, found but not run. It is read once: what is compared and recorded is what is executed."""

    name: str
    path: Path
    shadows: bool = False  # in ./recipes, with the name of a built-in one

    @cached_property
    def content(self) -> bytes:
        try:
            return small(self.path)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}", code=2) from error

    @property
    def source(self) -> str:
        return importlib.util.decode_source(self.content)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @property
    def summary(self) -> str:
        """The first line of the docstring, or what is wrong with the file."""
        try:
            return visible((ast.get_docstring(ast.parse(self.source)) or "no docstring").splitlines()[0])
        except (
            SyntaxError,
            ValueError,
            LookupError,
            RecursionError,
            MemoryError,
            UserError,
        ) as error:  # odd or nested text
            return visible(f"cannot be read: {str(error) or type(error).__name__}")


@dataclass(frozen=True)
class Option:
    """A keyword argument of a recipe, as it is typed on the command line."""

    name: str
    type: Any  # int, float, bool, str, Literal[...] or tuple[int, ...]
    default: Any
    help: str
    bounds: tuple[tuple[str, float], ...]  # such as (">=", 1)

    @property
    def metavar(self) -> str:
        """What `--help` shows for its value: the type and the range."""
        name = {"int": "INTEGER", "float": "FLOAT", "str": "TEXT"}.get(getattr(self.type, "__name__", ""), "")
        if get_origin(self.type) is tuple:
            name = "INTEGER,..."
        return " ".join([name, *(f"{sign}{bound:g}" for sign, bound in self.bounds)])

    def parse(self, text: object) -> Any:
        """The value that was typed. Raises ValueError with a reason for one that is not of the type or out of range."""
        if get_origin(self.type) is tuple:
            value: Any = tuple(_number(int, part) for part in str(text).split(",") if part.strip())
        elif get_origin(self.type) is Literal:
            value = str(text)
            if value not in get_args(self.type):
                raise ValueError(f"{value!r} is not one of {', '.join(get_args(self.type))}")
        elif self.type is bool:
            words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
            value = (
                words[str(text).lower()]
                if str(text).lower() in words
                else _raise(f"{text!r} is neither true nor false")
            )
        elif self.type in (int, float):
            value = _number(self.type, text)
        else:
            value = self.type(text)
        for sign, bound in self.bounds:
            for number in value if isinstance(value, tuple) else (value,):
                if not COMPARE[sign](number, bound):
                    raise ValueError(f"{number:g} is not {sign} {bound:g}")
        return value

    def check(self, value: object) -> None:
        """Raises ValueError for a value that nobody could have typed: a configuration may hold any."""
        text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
        if self.parse(text) != value or isinstance(value, bool) != (self.type is bool):
            raise ValueError(f"{value!r:.60} is not of its type")


COMPARE: Mapping[str, Callable[[float, float], bool]] = {
    ">=": lambda a, b: a >= b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    "<": lambda a, b: a < b,
}


def _number(kind: type[int] | type[float], text: Any) -> int | float:
    """A number as it was typed. Raises ValueError for one that is none, or that no 64 bits hold."""
    shown = str(text) if len(str(text)) < 40 else f"{str(text)[:20]}..."
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        if str(text).strip().lstrip("+-").isdigit():  # more digits than Python reads
            raise ValueError(f"{shown} is too large") from None
        raise ValueError(f"{shown!r} is not {'a whole number' if kind is int else 'a number'}") from None
    if not math.isfinite(value) if kind is float else abs(value) >= 2**63:
        raise ValueError(f"{shown} is too large" if kind is int else f"{shown} is not a finite number")
    return value


def _raise(reason: str) -> Any:
    raise ValueError(reason)


def available() -> dict[str, RecipeFile]:
    """Every recipe by name: the built-in ones, and those of ./recipes, which win."""
    spec = importlib.util.find_spec("aelab.recipes")
    built_in = [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []
    found: dict[str, RecipeFile] = {}
    for folder in (*built_in, Path("recipes")):
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_") and path.name.isprintable():
                known = found.get(path.stem)
                shadows = known is not None and known.path != path.resolve()
                found[path.stem] = RecipeFile(path.stem, path.resolve(), shadows)
    return dict(sorted(found.items()))


def find(name: str) -> RecipeFile:
    """The page of a recipe given by name or by path. Raises UserError, with the nearest name, if there is none."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"there is no file {name}.", code=2)
        return RecipeFile(Path(name).stem, Path(name).resolve())
    known = available()
    if name in known:
        return known[name]
    close = get_close_matches(name, known, 1)
    raise UserError(
        f"there is no recipe '{name}'." + (f" Did you mean {close[0]}?" if close else ""),
        f"Recipes: {', '.join(known)}, those in ./recipes, or a path such as ./mine.py",
        code=2,
    )


def trust(name: str) -> RecipeFile:
    """The page of a recipe whose name or path the user typed to train it; a path is remembered.

    Its runs can then be opened without the path being typed again, as long as not a byte of the file is changed.
    """
    page = find(name)
    if not _at_hand(page):
        _trusted.add(mark := _mark(page))
        with suppress(OSError):  # then it has to be typed again in the next command
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return page


_trusted: set[Path] = set()  # in this process


def _at_hand(page: RecipeFile) -> bool:
    """Whether a recipe is built in or in ./recipes."""
    return page.path in {known.path for known in available().values()}


def _mark(page: RecipeFile) -> Path:
    """An empty file of the user's own that says: this source was typed at this place."""
    digest = hashlib.sha256(os.fsencode(page.path) + b"\0" + page.content).hexdigest()
    return Path(platformdirs.user_cache_dir("aelab")) / "typed" / digest


def of_run(path: str, name: str) -> RecipeFile:
    """The page that a run names by the path or name in its configuration, and by the name in the store.

    Raises UserError where it is neither built in, nor in ./recipes, nor the very source that the user typed.
    """
    known = available()
    page = known.get(path) or (find(path) if path.endswith(".py") and Path(path).is_file() else None)
    if page is None:  # of another machine
        name = Path(name).name.removesuffix(".py")
        if name not in known:
            raise UserError(f"there is no recipe '{name}' here; this run was trained with it.",
                          f"Save its source, once you have read it, as recipes/{name}.py", code=2)  # fmt: skip
        return known[name]
    if not _at_hand(page) and not (_mark(page) in _trusted or _mark(page).exists()):
        raise UserError(
            f"this run names {page.path} as its recipe; a recipe that you have not typed, as it is now, is not executed.",
            f"Read it, then type: aelab train {shlex.quote(str(page.path))} --help", code=2,
        )  # fmt: skip
    return page


class _Source(SourceFileLoader):
    """Executes the source that was read, never a compiled file beside it."""

    def __init__(self, name: str, page: RecipeFile) -> None:
        super().__init__(name, str(page.path))
        self.content = page.content

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(self.content, self.path)
        return code


def load(page: RecipeFile) -> "type[Recipe]":
    """Runs a recipe's file and returns the one Recipe that it defines. Raises UserError if it cannot be loaded."""
    from aelab.recipe import Recipe

    _teach_old_names(Recipe)
    module_name = f"aelab_recipe_{page.name}_{page.sha256[:8]}"
    loader = _Source(module_name, page)
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
        where = next((f"line {frame.lineno}: " for frame in reversed(inspect.getinnerframes(error.__traceback__))
                      if frame.filename == str(page.path)), "") if error.__traceback__ else ""  # fmt: skip
        raise UserError(f"recipe {page.path} cannot be loaded.", f"{where}{type(error).__name__}: {error}") from error
    own = {item for item in vars(module).values() if inspect.isclass(item) and item.__module__ == module_name}
    recipes = [item for item in own if issubclass(item, Recipe)]
    if len(recipes) != 1:
        raise UserError(
            f"{page.path} defines {len(recipes)} subclasses of aelab.recipe.Recipe; a recipe's file has one."
        )
    for old, new in aliases.RECIPE.items():
        if old in vars(recipes[0]) and new not in vars(recipes[0]):
            setattr(recipes[0], new, vars(recipes[0])[old])
    return recipes[0]


def _teach_old_names(recipe: "type[Recipe]") -> None:
    """Lets a recipe file of version 0.1.0 import and call what it knew by other names."""
    module = sys.modules[recipe.__module__]
    for old, new in aliases.RECIPE_MODULE.items():
        setattr(module, old, getattr(module, new))
    for old, new in aliases.RECIPE.items():
        if hasattr(recipe, new):
            setattr(recipe, old, getattr(recipe, new))


def options(recipe: "type[Recipe]") -> list[Option]:
    """The keyword arguments of a recipe's constructor. Raises UserError for one without a type or a default."""
    try:
        hints = get_type_hints(recipe.__init__, include_extras=True)
    except NameError as error:
        raise UserError(f"{recipe.__name__}: the type of an option is not known when it runs: {error}") from error
    found = []
    for parameter in inspect.signature(recipe).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints.get(parameter.name)
        if hint is None or parameter.default is parameter.empty:
            raise UserError(f"{recipe.__name__}: the option {parameter.name} needs a type and a default.")
        plain, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if not _typable(plain):
            raise UserError(
                f"{recipe.__name__}: the option {parameter.name} cannot be typed on a command line.",
                "Its type must be int, float, bool, str, Literal of strings, or tuple[int, ...].",
            )
        help_line = next((note for note in notes if isinstance(note, str)), "")
        found.append(Option(parameter.name, plain, parameter.default, help_line, _bounds(notes)))
    return found


def _typable(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return all(isinstance(value, str) for value in get_args(hint))
    return hint in (int, float, bool, str) or (get_origin(hint) is tuple and get_args(hint) == (int, ...))


def _bounds(notes: list[object]) -> tuple[tuple[str, float], ...]:
    """The limits that annotated_types' Ge, Gt, Le, Lt and Interval set."""
    signs = (("ge", ">="), ("gt", ">"), ("le", "<="), ("lt", "<"))
    return tuple(
        (sign, limit) for note in notes for field, sign in signs if (limit := getattr(note, field, None)) is not None
    )


def asks_for_classes(recipe: "type[Recipe]") -> bool:
    """Whether the constructor wants the number of classes behind the shape of an image."""
    return "classes" in inspect.signature(recipe).parameters


def build(page: RecipeFile, image: "ImageShape", values: Mapping[str, Any], classes: int = 0) -> "Recipe":
    """The recipe with these options for images of this shape and, if it asks, this number of classes.

    Raises UserError if it does not accept them.
    """
    recipe = load(page)
    known = {option.name: option for option in options(recipe)}
    for name in values:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f" Did you mean {close[0]}?" if close else f" It has: {', '.join(known)}."
            raise UserError(f"{page.name} has no option '{name}'.{hint}", code=2)
        try:
            known[name].check(values[name])
        except ValueError as error:
            raise UserError(f"{page.name} does not accept these options: {name}: {error}", code=2) from error
    channels, height, width = image
    if not recipe.overcomplete and values.get("latent_dim", 0) > channels * height * width:
        raise UserError(
            f"--latent-dim {values['latent_dim']} is more than the {channels * height * width} values of an image "
            f"({channels} x {height} x {width}).",
            code=2,
        )
    asks = asks_for_classes(recipe)
    if asks and classes < 2:
        raise UserError(f"{page.name} classifies, but these images have no classes.",
                      "In a folder of pictures each folder within it is a class.", code=2)  # fmt: skip
    try:
        return recipe(image, *[classes] * asks, **values)
    except (ValueError, TypeError, RuntimeError) as error:
        if out_of_memory(error):
            raise no_memory() from error
        raise UserError(f"{page.name} does not accept these options: {error}", code=2) from error
