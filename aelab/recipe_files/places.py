"""Where recipe files are, and which of them may be executed because the user typed their path."""

import hashlib
import importlib.util
import os
import shlex
from contextlib import suppress
from pathlib import Path

import platformdirs

from aelab.errors import UserError, did_you_mean, similar
from aelab.recipe_files.recipe_file import RecipeFile


def available() -> dict[str, RecipeFile]:
    """Every recipe by name: the built-in ones, and those in ./recipes, which take precedence."""
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
    """The file of a recipe, given by name or path. Raises UserError, suggesting a similar name, if there is none."""
    if name.endswith(".py"):
        if not Path(name).is_file():
            raise UserError(f"there is no file {name}.", code=2)
        return RecipeFile(Path(name).stem, Path(name).resolve())
    known = available()
    if name in known:
        return known[name]
    raise UserError(
        f"there is no recipe '{name}'." + did_you_mean(similar(name, known)),
        f"Recipes: {', '.join(known)}, those in ./recipes, or a path such as ./mine.py",
        code=2,
    )


def trust(name: str) -> RecipeFile:
    """The file of a recipe whose name or path the user typed. A path is remembered.

    Its runs can then be opened without typing the path again, as long as the file is not changed.
    """
    recipe_file = find(name)
    if not _is_local(recipe_file):
        _trusted.add(mark := _trust_file(recipe_file))
        with suppress(OSError):  # then the path must be typed again in the next command
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    return recipe_file


_trusted: set[Path] = set()  # in this process


def _is_local(recipe_file: RecipeFile) -> bool:
    """Whether a recipe is built in or in ./recipes."""
    return recipe_file.path in {known.path for known in available().values()}


def _trust_file(recipe_file: RecipeFile) -> Path:
    """An empty file in the user's cache folder that records that this path with this content was typed."""
    digest = hashlib.sha256(os.fsencode(recipe_file.path) + b"\0" + recipe_file.content).hexdigest()
    return Path(platformdirs.user_cache_dir("aelab")) / "typed" / digest


def of_run(path: str, name: str) -> RecipeFile:
    """The recipe file of a run, by the path or name in its configuration, else by its name in the store.

    Raises UserError if it is neither built in, nor in ./recipes, nor a file with the content that the user typed the path of.
    """
    known = available()
    recipe_file = known.get(path) or (find(path) if path.endswith(".py") and Path(path).is_file() else None)
    if recipe_file is None:  # the path is of another machine
        name = Path(name).name.removesuffix(".py")
        if name not in known:
            raise UserError(
                f"there is no recipe '{name}' here; this run was trained with it.",
                f"Save its source, once you have read it, as recipes/{name}.py",
                code=2,
            )
        return known[name]
    if not _is_local(recipe_file) and not (_trust_file(recipe_file) in _trusted or _trust_file(recipe_file).exists()):
        raise UserError(
            f"this run names {recipe_file.path} as its recipe; "
            "a recipe that you have not typed, as it is now, is not executed.",
            f"Read it, then type: aelab train {shlex.quote(str(recipe_file.path))} --help",
            code=2,
        )
    return recipe_file
