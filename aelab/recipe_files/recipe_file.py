"""A recipe file: its bytes, its source and its digest. Nothing here executes it."""

import ast
import hashlib
import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from aelab.errors import UserError, visible
from aelab.files import read_small_file

# What Python raises for a source that it cannot parse, for an unknown encoding, or for one that is nested too deeply.
UNREADABLE = (SyntaxError, ValueError, LookupError, RecursionError, MemoryError)
COMMON = ("aelab", "aelab.recipe")  # imported by every recipe; not part of its digest


@dataclass(frozen=True)
class RecipeFile:
    """A recipe file, not executed. It is read once, so that what is compared and recorded is what is executed."""

    name: str
    path: Path
    shadows: bool = False  # in ./recipes, with the name of a built-in one

    @cached_property
    def content(self) -> bytes:
        """The bytes of the file. Raises UserError if it cannot be read."""
        try:
            return read_small_file(self.path)
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}", code=2) from error

    @property
    def source(self) -> str:
        """The text of the file. Raises one of UNREADABLE if it cannot be decoded."""
        return importlib.util.decode_source(self.content)

    @cached_property
    def tree(self) -> ast.Module:
        """The source, parsed. Raises one of UNREADABLE if it is not Python."""
        return _parsed(self.source)

    @cached_property
    def sha256(self) -> str:
        """A digest of the code that is trained: the file, and the modules of aelab that it imports beyond `aelab.recipe`.

        It is the SHA-256 of the file alone if there are no such modules.
        """
        own = hashlib.sha256(self.content).hexdigest()
        try:
            modules = _modules(self.tree)
        except UNREADABLE:
            return own
        if not modules:
            return own
        facts = [own, *(f"{name} {hashlib.sha256(content).hexdigest()}" for name, content in sorted(modules.items()))]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    @property
    def summary(self) -> str:
        """The first line of the docstring, or why the file cannot be read."""
        try:
            return visible((ast.get_docstring(self.tree) or "no docstring").splitlines()[0])
        except (UserError, *UNREADABLE) as error:
            return visible(f"cannot be read: {str(error) or type(error).__name__}")


def _parsed(source: str | bytes) -> ast.Module:
    """Parses a source. Python's warnings about it are shown when it is executed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(source)


def _modules(tree: ast.Module) -> dict[str, bytes]:
    """The sources of the modules of aelab that a source imports, directly or indirectly, by name."""
    found: dict[str, bytes] = {}
    waiting = list(_imports(tree))
    while waiting:
        name = waiting.pop()
        if name not in found and name not in COMMON and (path := _file(name)) is not None:
            found[name] = path.read_bytes()
            waiting += _imports(_parsed(found[name]))
    return found


def _imports(tree: ast.Module) -> Iterator[str]:
    """The names under aelab that a source imports, anywhere in it: modules, and names in modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "aelab":  # an import of a.b.c executes a and a.b too
                yield from (".".join(parts[:length]) for length in range(1, len(parts) + 1))


def _file(name: str) -> Path | None:
    """The source file of a module of aelab, found without importing it; None if there is no such module."""
    _, room, *rest = name.split(".")
    spec = importlib.util.find_spec(f"aelab.{room}")  # which imports `aelab` alone
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    if not rest:
        return path
    if spec.submodule_search_locations is None:
        return None
    inner = path.parent.joinpath(*rest)
    return next((each for each in (inner / "__init__.py", inner.with_name(f"{rest[-1]}.py")) if each.is_file()), None)
