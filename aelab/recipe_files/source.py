"""Reads the signature of a recipe from its source, as executing the file would import torch, which takes seconds.

The result is exactly what executing the file would give. If that is not certain, there is no result.
"""

import ast
import builtins
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from aelab import aliases
from aelab.errors import UserError
from aelab.recipe_files.option import SETTINGS, Signature, option
from aelab.recipe_files.recipe_file import UNREADABLE, RecipeFile

# Packages whose import changes no recipe. `__future__` is not among them, as it would turn annotations into strings.
PACKAGES = sys.stdlib_module_names - {"__future__"} | {"aelab", "annotated_types", "numpy", "torch", "torchvision"}
PURE = ("math.", "torch.")  # their functions change no recipe either
VALUES = {f"builtins.{kind.__name__}": kind for kind in (int, float, bool, str, tuple)} | {
    "typing.Annotated": Annotated,
    "typing.Literal": Literal,
}
BOUNDS = tuple(f"annotated_types.{name}" for name in ("Ge", "Gt", "Le", "Lt", "Interval"))
DECORATORS = ("builtins.property", "builtins.staticmethod", "builtins.classmethod")


class _UnclearError(Exception):
    """The source alone does not tell what executing it would give."""


def read(recipe_file: RecipeFile) -> Signature | None:
    """The signature of a recipe, or None if only executing it tells."""
    try:
        return _Source(recipe_file.tree).signature()
    except (_UnclearError, UserError, TypeError, *UNREADABLE):
        return None


class _Source:
    """A source whose statements only bind names, so that the meaning of a name can be read from it.

    A name has a known meaning if imports of one thing at the top level are all that binds it, or if it is a builtin that
    nothing binds.
    """

    def __init__(self, tree: ast.Module) -> None:
        self.tree = tree
        self.bound: dict[str, list[str]] = defaultdict(list)  # the full name for an import, "" for anything else
        top = set(tree.body)
        for node in ast.walk(tree):
            for name, meaning in _bindings(node, node in top):
                self.bound[name].append(meaning)

    def signature(self) -> Signature:
        """The signature of the file's one recipe. Raises _UnclearError if it cannot be read."""
        self._check(self.tree.body)
        recipe = self._recipe()
        constructors = [node for node in recipe.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"]
        if not constructors or constructors[0].decorator_list:
            raise _UnclearError
        arguments = constructors[0].args
        plain = [*arguments.posonlyargs, *arguments.args]
        others = [each for each in (arguments.vararg, arguments.kwarg) if each]
        if not plain or any(
            map(_has_string, [constructors[0].returns, *(each.annotation for each in (*plain, *others))])
        ):
            raise _UnclearError  # self may be in *args; a type in quotes may be unknown when the file is executed
        found = []
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if argument.annotation is None or default is None or argument.arg.startswith("__"):  # which Python renames
                raise _UnclearError
            hint = self.value(argument.annotation)
            found.append(option(recipe.name, argument.arg, hint, self.value(default)))
        takes_classes = "classes" in [each.arg for each in (*plain[1:], *arguments.kwonlyargs, *others)]
        without_default = plain[1 : len(plain) - len(arguments.defaults)]
        needs_classes = "classes" in [each.arg for each in without_default]
        settings = {**_default_settings(), **self.settings(recipe)}
        return Signature(
            tuple(found), settings, ast.get_docstring(self.tree, clean=False) or "", takes_classes, needs_classes
        )

    def settings(self, recipe: ast.ClassDef) -> dict[str, Any]:
        """The values that a class sets for SETTINGS, by their present names."""
        old_names = {old: new for old, new in aliases.RECIPE.items() if new in SETTINGS}
        found: dict[str, Any] = {}
        for node in recipe.body:
            value = node.value if isinstance(node, (ast.Assign, ast.AnnAssign)) else None
            for name in _names(node):
                if name in SETTINGS or name in old_names:
                    found[name] = self.value(value)
        return aliases.renamed(found, old_names)

    def _recipe(self) -> ast.ClassDef:
        """The one class that inherits from Recipe only. Raises _UnclearError if another class might inherit from it too."""
        classes = [node for node in self.tree.body if isinstance(node, ast.ClassDef)]
        recipes = [node for node in classes if [self.meaning(base) for base in node.bases] == ["aelab.recipe.Recipe"]]
        if len(recipes) != 1 or len(self.bound[recipes[0].name]) != 1 or recipes[0].decorator_list:
            raise _UnclearError
        (recipe,) = recipes
        helpers = {node.name for node in classes if node is not recipe}
        for base in (base for node in classes if node is not recipe for base in node.bases):
            root = self.meaning(base).partition(".")[0]
            if root in ("", "aelab") and not (isinstance(base, ast.Name) and base.id in helpers):
                raise _UnclearError
        if [name for node in recipe.body for name in _names(node) if name.startswith("__")] != ["__init__"]:
            raise _UnclearError  # such as __new__ or __signature__
        return recipe

    def _check(self, body: Sequence[ast.stmt]) -> None:
        """Raises _UnclearError for a statement that may do more than bind names."""
        for node in body:
            match node:
                case ast.Pass() | ast.Expr(value=ast.Constant()):
                    continue
                case ast.Import() | ast.ImportFrom(level=0):
                    modules = [node.module] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                    if any(str(module).partition(".")[0] not in PACKAGES for module in modules):
                        raise _UnclearError
                case ast.FunctionDef() | ast.AsyncFunctionDef():
                    self._check_decorators(node.decorator_list)
                    self._check_calls([node.args, *filter(None, [node.returns])])
                case ast.ClassDef(keywords=[]):
                    self._check_decorators(node.decorator_list)
                    self._check_calls(node.bases)
                    self._check(node.body)
                case ast.Assign(targets=targets) if all(isinstance(target, ast.Name) for target in targets):
                    self._check_calls([node.value])
                case ast.AnnAssign(target=ast.Name()):
                    self._check_calls([node.annotation, *filter(None, [node.value])])
                case _:
                    raise _UnclearError
            if getattr(node, "type_params", None) or {"*", "__doc__"} & {*_names(node)}:
                raise _UnclearError  # a star hides what it binds

    def _check_calls(self, nodes: Sequence[ast.AST]) -> None:
        """Raises _UnclearError if an expression calls a function that is not known to change nothing."""
        for node in (inner for each in nodes for inner in ast.walk(each)):
            if isinstance(node, ast.Call) and not self.meaning(node.func).startswith((*PURE, *BOUNDS)):
                raise _UnclearError

    def _check_decorators(self, nodes: Sequence[ast.expr]) -> None:
        """Raises _UnclearError for a decorator that is neither imported nor one of DECORATORS."""
        for node in nodes:
            meaning = self.meaning(node.func if isinstance(node, ast.Call) else node)
            if not meaning or (meaning.startswith("builtins.") and meaning not in DECORATORS):
                raise _UnclearError

    def meaning(self, node: ast.expr) -> str:
        """The full name that a name, or a dotted name, stands for; "" if it is not known."""
        if isinstance(node, ast.Attribute):
            inner = self.meaning(node.value)
            return inner and f"{inner}.{node.attr}"
        if not isinstance(node, ast.Name):
            return ""
        if node.id not in self.bound:
            return f"builtins.{node.id}" if hasattr(builtins, node.id) else ""
        meanings = set(self.bound[node.id])
        return meanings.pop() if len(meanings) == 1 else ""

    def value(self, node: ast.expr | None) -> Any:
        """The value of a literal or of an annotated type. Raises _UnclearError for anything else."""
        match node:
            case ast.Constant(value=value):
                return value
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return -number
            case ast.Tuple(elts=elements):
                return tuple(self.value(element) for element in elements)
            case ast.Name() | ast.Attribute() if (meaning := self.meaning(node)) in VALUES:
                return VALUES[meaning]
            case ast.Subscript(value=outer, slice=inner):
                return self.value(outer)[self.value(inner)]
            case ast.Call(func=function) if (meaning := self.meaning(function)) in BOUNDS:
                named = {keyword.arg: self.value(keyword.value) for keyword in node.keywords if keyword.arg}
                if len(named) == len(node.keywords):
                    import annotated_types

                    made = getattr(annotated_types, meaning.rpartition(".")[2])
                    return made(*(self.value(each) for each in node.args), **named)
        raise _UnclearError


def _bindings(node: ast.AST, at_the_top: bool) -> Iterator[tuple[str, str]]:
    """The names that a node itself binds, with their meanings: the full name for an import, "" for anything else."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                meaning = f"{node.module}.{alias.name}"
            else:
                meaning = alias.name if alias.asname else alias.name.partition(".")[0]
            name = alias.asname or (alias.name if isinstance(node, ast.ImportFrom) else meaning)
            yield name, meaning if at_the_top else ""
    elif isinstance(node, ast.Name):
        if not isinstance(node.ctx, ast.Load):
            yield node.id, ""
    elif not isinstance(node, ast.alias):  # a function, a class, an exception's, a pattern's, a type parameter's
        names = (getattr(node, "name", None), getattr(node, "rest", None))
        yield from ((name, "") for name in names if isinstance(name, str))


def _has_string(annotation: ast.expr | None) -> bool:
    """Whether an annotation contains a string."""
    return annotation is not None and any(
        isinstance(node, ast.Constant) and isinstance(node.value, str) for node in ast.walk(annotation)
    )


def _names(statement: ast.stmt) -> Iterator[str]:
    """The names that a statement binds in its scope, for a statement that `_Source` accepts."""
    if isinstance(statement, ast.Assign):
        yield from (target.id for target in statement.targets if isinstance(target, ast.Name))
    elif isinstance(statement, ast.AnnAssign):
        if statement.value is not None and isinstance(statement.target, ast.Name):
            yield statement.target.id
    else:
        yield from (name for name, _ in _bindings(statement, True))


@cache
def _default_settings() -> dict[str, Any]:
    """The values of SETTINGS in the class Recipe, which a recipe inherits."""
    source = _Source(ast.parse((Path(__file__).parents[1] / "recipe.py").read_bytes()))
    (recipe,) = (node for node in source.tree.body if isinstance(node, ast.ClassDef) and node.name == "Recipe")
    return source.settings(recipe)
