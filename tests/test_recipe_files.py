import hashlib
import inspect
import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import torch

import aelab
from aelab import recipe_files
from aelab.errors import UserError
from aelab.recipe import Recipe
from aelab.recipe_files import Option, RecipeFile
from aelab.recipe_files.execute import signature_of_class
from aelab.recipe_files.option import SETTINGS
from aelab.recipe_files.source import read

HEAD = '''"""One of my own."""

from typing import Annotated, Literal, Optional

import torch
from annotated_types import Ge, Gt, Interval, Le, Lt

from aelab.recipe import Image, Recipe
'''


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    """An empty working directory; no recipe's module outlives its test."""
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("aelab_recipe_"):
            del sys.modules[name]


def put(path, text):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return RecipeFile(path.stem, path.resolve())


def recipe(options="", body="", name="Mine", head=HEAD):
    star = f", *, {options}" if options else ""
    return f"{head}\n\nclass {name}(Recipe):\n    def __init__(self, image{star}):\n        super().__init__()\n{body}"


def option(text, head=HEAD):
    """The one option of a recipe that is written like this."""
    (found,) = recipe_files.signature(put("mine.py", recipe(text, head=head))).options
    return found


# found


def test_built_in_recipes_are_found_anywhere():
    folder = Path(next(iter(find_spec("aelab.recipes").submodule_search_locations)))
    found = recipe_files.available()
    assert list(found) == sorted(path.stem for path in folder.glob("[!_]*.py"))
    assert {"gan", "linear", "stacked", "vae"} <= set(found)
    assert all(each.path.is_absolute() and each.summary.endswith(".") for each in found.values())


@pytest.mark.parametrize("code", ["raise RuntimeError", "import sys; sys.exit(3)", "Path('ran').touch()"])
def test_listing_runs_no_recipe(code, desk):
    put("recipes/boom.py", f'"""Goes off."""\nfrom pathlib import Path\nPath("ran").touch()\n{code}\n')
    recipe_file = recipe_files.available()["boom"]
    assert recipe_file.summary == "Goes off."
    assert len(recipe_file.sha256) == 64 and recipe_file.source.endswith(f"{code}\n")
    assert recipe_files.find("boom") == recipe_file
    assert not (desk / "ran").exists()


@pytest.mark.parametrize("content", [b"def (", b"\xff\xfe\x00", b"x = 1\0"])
def test_unreadable_file_does_not_hide_the_others(content):
    put("recipes/bad.py", "")
    Path("recipes/bad.py").write_bytes(content)
    assert recipe_files.available()["bad"].summary.startswith("cannot be read")
    assert recipe_files.available()["linear"].summary.startswith("Linear")


@pytest.mark.parametrize("content", ["# coding: zlib\n", "x = " + "-" * 300_000 + "1\n", "x = " + "(" * 50_000])
def test_neither_does_one_that_python_cannot_parse(content):
    put("recipes/bad.py", content)
    summary = recipe_files.available()["bad"].summary
    assert summary.startswith("cannot be read: ") and not summary.endswith(": ")


def test_file_without_docstring_says_so():
    put("recipes/plain.py", "x = 1\n")
    assert recipe_files.available()["plain"].summary == "no docstring"


def test_local_recipe_wins_over_the_built_in_one(desk):
    built_in = recipe_files.find("linear").path
    put("recipes/linear.py", recipe(name="Local"))
    put("recipes/_helper.py", "")
    assert recipe_files.find("linear").path == desk / "recipes/linear.py" != built_in
    assert recipe_files.load(recipe_files.find("linear")).__name__ == "Local"
    assert "_helper" not in recipe_files.available()


@pytest.mark.parametrize("path", ["some where/mein modell ü.py", "./my.model-2.py"])
def test_recipe_by_path(path, desk):
    put(path, recipe())
    recipe_file = recipe_files.find(path)
    assert recipe_file.path == (desk / path).resolve() and recipe_file.name == Path(path).stem
    assert recipe_files.load(recipe_file).__name__ == "Mine"


def test_path_without_file():
    with pytest.raises(UserError, match=re.escape("there is no file ./missing.py")) as caught:
        recipe_files.find("./missing.py")
    assert caught.value.code == 2


def test_nearest_name_is_offered():
    put("recipes/my_own_one.py", recipe())
    for typed, meant in (("lineer", "linear"), ("my_onw_one", "my_own_one")):
        with pytest.raises(UserError, match=f"Did you mean {meant}") as caught:
            recipe_files.find(typed)
        assert caught.value.code == 2
    with pytest.raises(UserError) as caught:
        recipe_files.find("xyzzy")
    assert "Did you mean" not in str(caught.value) and "gan, linear" in str(caught.value)


# loaded


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("x = 1\n\nclass A(:\n    pass\n", 3, "SyntaxError"),
        ("x = 1\n\n\nraise RuntimeError('out of luck')\n", 4, "RuntimeError: out of luck"),
        ("import sys\n\nsys.exit(7)\n", 3, "SystemExit: 7"),
        ("\nimport not_a_module_at_all\n", 2, "ModuleNotFoundError"),
        ("def f():\n    return 1 / 0\n\n\nf()\n", 2, "ZeroDivisionError"),  # where it went wrong, not who asked for it
    ],
    ids=["syntax", "exception", "exit", "import", "inner"],
)
def test_recipe_that_cannot_be_loaded(text, line, what):
    recipe_file = put("bad.py", text)
    before = set(sys.modules)
    with pytest.raises(UserError) as caught:
        recipe_files.load(recipe_file)
    message = str(caught.value)
    assert str(recipe_file.path) in message and what in message
    assert re.search(rf"\bline {line}\b", message)
    assert not {name for name in set(sys.modules) - before if "bad" in name}


def test_an_error_in_a_module_of_ones_own_has_its_place_there(desk, monkeypatch):
    put("xxx_own.py", "def f(x):\n    return 1 / x\n\nif 'go':\n    f(0)\n")
    monkeypatch.syspath_prepend(str(desk))
    with pytest.raises(recipe_files.RecipeError, match=r"\nxxx_own.py, line 2: ZeroDivisionError") as caught:
        recipe_files.load(put("mine.py", f"\nimport xxx_own\n{recipe()}"))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    put("xxx_own.py", "def f(x):\n    return 1 / x\n")
    body = "        import xxx_own\n        xxx_own.f(0)\n"
    with pytest.raises(recipe_files.RecipeError, match=r"^xxx_own.py, line 2, in f: return 1 / x\n"):
        recipe_files.build(put("mine.py", recipe(body=body)), (1, 4, 4), {})


def test_an_error_in_a_library_has_its_place_in_the_recipe():
    with pytest.raises(recipe_files.RecipeError, match=r"\nline 15: JSONDecodeError: "):
        recipe_files.load(put("mine.py", f"{recipe()}\nimport json; json.loads('{{')\n"))


@pytest.mark.parametrize(("folder", "shown"), [("", "."), ("some where/", "'some where'")])
def test_a_recipe_that_imports_its_neighbour_is_told_that_it_is_one_file(folder, shown):
    put(f"{folder}xxx_neighbour.py", "x = 1\n")
    with pytest.raises(recipe_files.RecipeError) as caught:
        recipe_files.load(put(f"{folder}mine.py", "import xxx_neighbour\n"))
    _, why, what = str(caught.value).splitlines()
    assert why == "line 1: ModuleNotFoundError: No module named 'xxx_neighbour'"
    assert what == f"A recipe is one file. To let it import others: PYTHONPATH={shown} aelab ..."
    with pytest.raises(recipe_files.RecipeError, match=r"No module named 'not_there'\Z"):
        recipe_files.load(put(f"{folder}mine.py", "import not_there\n"))


def test_ctrl_c_while_loading_is_no_fault_of_the_recipe():
    with pytest.raises(KeyboardInterrupt):
        recipe_files.load(put("mine.py", "raise KeyboardInterrupt\n"))


@pytest.mark.parametrize(("count", "text"), [(0, HEAD), (2, recipe(name="A") + recipe(name="B"))])
def test_file_has_one_recipe(count, text):
    with pytest.raises(UserError, match=f"defines {count} subclasses"):
        recipe_files.load(put("mine.py", text))


def test_imported_recipes_and_helpers_do_not_count():
    base = put("base.py", recipe(name="Base"))
    text = recipe(name="Mine") + "\n\nclass Helper(torch.nn.Module):\n    pass\n"
    text += f"\n\nimport sys\nsys.path.insert(0, {str(base.path.parent)!r})\nfrom base import Base\nsys.path.pop(0)\n"
    try:
        assert recipe_files.load(put("mine.py", text)).__name__ == "Mine"
    finally:
        sys.modules.pop("base", None)


def test_second_name_of_the_same_recipe_does_not_count():
    assert recipe_files.load(put("mine.py", recipe() + "\n\nShort = Mine\n")).__name__ == "Mine"


def test_two_files_of_one_name_are_two_modules():
    one, two = (put(f"{folder}/mine.py", recipe(name=name)) for folder, name in (("a", "One"), ("b", "Two")))
    first, second = recipe_files.load(one), recipe_files.load(two)
    assert (first.__name__, second.__name__) == ("One", "Two")
    assert first.__module__ != second.__module__


def test_changed_file_is_run_anew():
    assert recipe_files.load(put("mine.py", recipe(name="Before"))).__name__ == "Before"
    assert recipe_files.load(put("mine.py", recipe(name="After"))).__name__ == "After"


# options


def test_options_are_the_keyword_arguments():
    text = recipe(
        'k: Annotated[int, Ge(1), Le(9), "how many"] = 3, rate: Annotated[float, Interval(ge=0, lt=1), "share"] = 0.5, '
        'mode: Literal["a", "b"] = "a", flag: bool = False, word: str = "x", widths: tuple[int, ...] = (3, 2)'
    )
    found = {option.name: option for option in recipe_files.signature(put("mine.py", text)).options}
    assert list(found) == ["k", "rate", "mode", "flag", "word", "widths"]
    assert found["k"] == Option("k", int, 3, "how many", ((">=", 1), ("<=", 9)))
    assert found["rate"] == Option("rate", float, 0.5, "share", ((">=", 0), ("<", 1)))
    assert found["mode"].type == Literal["a", "b"]
    metavars = [found[name].metavar for name in ("k", "rate", "word", "widths")]
    assert metavars == ["INTEGER 1..9", "FLOAT >=0 <1", "TEXT", "INTEGER,..."]


def test_annotations_may_be_strings():
    text = 'k: Annotated[int, Gt(0), "how many"] = 3'
    strings, plain = option(text, head=f"from __future__ import annotations\n{HEAD}"), option(text)
    assert strings == plain == Option("k", int, 3, "how many", ((">", 0),))


def test_type_that_only_a_type_checker_knows():
    head = f"from __future__ import annotations\n{HEAD}\nif __import__('typing').TYPE_CHECKING:\n    from x import Y\n"
    text = recipe("k: int = 3, other: Y = None", head=head)
    with pytest.raises(UserError, match="Y"):
        recipe_files.signature(put("mine.py", text))


@pytest.mark.parametrize("text", ["k = 3", "k: int", "k"])
def test_option_needs_a_type_and_a_default(text):
    with pytest.raises(UserError, match=r"^mine.py, line 12: the option k needs a type and a default"):
        option(text)


@pytest.mark.parametrize(
    ("text", "range_"),
    [
        ("k: Annotated[int, Ge(1)] = 0", "INTEGER >=1"),
        ("k: Annotated[float, Interval(gt=0, lt=1)] = 1.0", "FLOAT >0 <1"),
        ("k: Annotated[float, Le(1)] = float('nan')", "FLOAT <=1"),
        ("k: Annotated[tuple[int, ...], Ge(1)] = (3, 0)", "INTEGER,... >=1"),
        ("k: Literal['a', 'b'] = 'c'", "a|b"),
    ],
)
def test_a_default_out_of_its_own_range_is_refused(text, range_):
    recipe_file = put("mine.py", recipe(text))
    says = f"^mine.py, line 12: the default of the option k, .*, is not in its range: {re.escape(range_)}.$"
    assert read(recipe_file) is None, "so it is not accepted there either"
    with pytest.raises(UserError, match=says):
        signature_of_class(recipe_files.load(recipe_file))
    with pytest.raises(UserError, match=says):
        recipe_files.signature(recipe_file)


def test_a_default_at_its_bound_is_in_range():
    assert option("k: Annotated[float, Interval(ge=0, le=1)] = 1").default == 1
    assert option("k: Annotated[int, Ge(1)] = None").default is None, "for the constructor to fill in"


@pytest.mark.parametrize(
    "hint", ["Optional[int]", "int | None", "list[int]", "tuple[float, ...]", "Literal[1, 2]", "dict"]
)
def test_option_of_a_type_that_cannot_be_typed_is_refused(hint):
    with pytest.raises(UserError, match="k"):
        option(f"k: {hint} = None")


def test_recipe_without_options():
    assert recipe_files.signature(put("mine.py", recipe())).options == ()


@pytest.mark.parametrize(
    ("kind", "bounds", "text", "value"),
    [
        (int, (), "12", 12),
        (int, ((">=", 1),), "1", 1),
        (float, (), "1e-3", 1e-3),
        (float, (), "3", 3.0),
        (float, ((">", 0), ("<=", 1)), "1", 1.0),
        (str, (), "some words", "some words"),
        (bool, (), "True", True),
        (bool, (), "no", False),
        (bool, (), "0", False),
        (bool, (), "yes", True),
        (Literal["a", "b"], (), "b", "b"),
        (tuple[int, ...], ((">=", 1),), "3,2,1", (3, 2, 1)),
        (tuple[int, ...], (), " 5 , 6 ", (5, 6)),
        (tuple[int, ...], (), "7", (7,)),
    ],
)
def test_parse(kind, bounds, text, value):
    parsed = Option("n", kind, None, "", bounds).parse(text)
    assert parsed == value and type(parsed) is type(value)


@pytest.mark.parametrize(
    ("kind", "bounds", "text", "reason"),
    [
        (int, (), "3.5", "'3.5' should be a valid integer"),
        (int, (), "", "'' should be a valid integer"),
        (int, (), str(2**63), "should be less than or equal to 9223372036854775807"),
        (int, (("<=", 2**70),), str(2**63), "should be less than or equal to 9223372036854775807"),
        (int, ((">=", 1),), "0", "'0' should be greater than or equal to 1"),
        (int, ((">=", 1), (">=", 0)), "0", "'0' should be greater than or equal to 1"),
        (float, ((">", 0),), "0", "'0' should be greater than 0"),
        (float, ((">=", 0), ("<", 1)), "1", "'1' should be less than 1"),
        (float, (("<=", 1),), "1.5", "'1.5' should be less than or equal to 1"),
        (float, ((">", 0),), "nan", "'nan' should be a finite number"),
        (float, (), "1e999", "'1e999' should be a finite number"),
        (float, (), "much", "'much' should be a valid number"),
        (bool, (), "maybe", "'maybe' should be a valid boolean"),
        (Literal["a", "b"], (), "c", "'c' should be 'a' or 'b'"),
        (tuple[int, ...], (), "1,x", "'x' should be a valid integer"),
        (tuple[int, ...], ((">=", 1),), "4,0,2", "'0' should be greater than or equal to 1"),
    ],
)
def test_parse_says_what_is_wrong(kind, bounds, text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)) as caught:
        Option("n", kind, None, "", bounds).parse(text)
    assert len(str(caught.value)) < 120 and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "values", "others"),
    [
        (int, [0, -5], [True, 1.0, "1", None, 2**63, -(2**63) - 1, (1,)]),
        (float, [0.5, 3], [True, "1", None, math.inf, math.nan, 10**400]),
        (bool, [True, False], [1, 0, "true", None]),
        (str, ["", "x"], [1, None, ("x",), b"x"]),
        (Literal["a", "b"], ["a"], ["c", 1, None, ["a"]]),
        (tuple[int, ...], [(), (3, 2)], [[3], 3, "3", (True,), (1.0,), (2**63,), None]),
    ],
)
def test_check_takes_only_what_could_have_been_typed(kind, values, others):
    option = Option("n", kind, None, "", ())
    for value in values:
        option.check(value)
    for value in others:
        with pytest.raises(ValueError, match="should be"):
            option.check(value)


@pytest.mark.parametrize(
    "hint",
    ["int, Ge(0.5)", "int, Le(float('inf'))", "str, Ge(1)", "bool, Ge(0)", "Literal['a'], Ge(0)", "int, Ge('1')"],
)
def test_a_bound_that_does_not_fit_its_type_is_the_fault_of_the_recipe(hint):
    with pytest.raises(UserError, match="the option k has a bound that does not fit its type"):
        option(f"k: Annotated[{hint}] = None")


@pytest.mark.parametrize("name", ["gan", "linear", "stacked", "vae"])
def test_defaults_of_the_built_in_recipes_are_in_their_bounds(name):
    for found in recipe_files.signature(recipe_files.find(name)).options:
        typed = ",".join(map(str, found.default)) if isinstance(found.default, tuple) else str(found.default)
        assert found.parse(typed) == found.default
        assert found.help


# read from the source


def compared(recipe_file):
    """What the source says, and what running it says."""
    return read(recipe_file), signature_of_class(recipe_files.load(recipe_file))


@pytest.mark.parametrize("name", list(recipe_files.available()))
def test_the_source_of_a_built_in_recipe_says_all_that_running_it_does(name):
    from_source, from_class = compared(recipe_files.find(name))
    assert from_source == from_class


def test_the_usual_settings_are_those_of_the_class_recipe():
    found = recipe_files.signature(put("mine.py", recipe())).settings
    assert found == {name: getattr(Recipe, name) for name in SETTINGS}
    assert set(SETTINGS) <= set(vars(Recipe))


def mine(head="", attributes="", arguments="self, image, *, k: int = 3", bases="Recipe", tail=""):
    """A recipe with something odd in it."""
    return (
        f"{HEAD}{head}\n\nclass Mine({bases}):\n    {attributes or 'pass'}\n"
        f"    def __init__({arguments}):\n        super().__init__()\n{tail}"
    )


AT_LEAST_1 = "self, image, *, k: Annotated[int, Ge(1)] = 3"
READ = {
    "nothing odd": mine(arguments=AT_LEAST_1),
    "negative": mine(arguments="self, image, *, k: Annotated[float, Ge(-1.5), 'x' 'y'] = -0.5"),
    "renamed": mine(
        "import annotated_types as at, typing as t\n", arguments="self, image, *, k: t.Annotated[int, at.Gt(0)] = 3"
    ),
    "bounds by name": mine(arguments="self, image, *, k: Annotated[float, Interval(ge=0, lt=1), Le(le=1)] = 0.5"),
    "notes alone": mine(arguments="self, image, *, k: Annotated[tuple[int, ...], 5, 'first', 'second'] = ()"),
    "no image": mine(arguments="self, *, k: bool = True"),
    "classes": mine(arguments="self, image, classes, *, k: int = 3"),
    "classes by name": mine(arguments="self, image, *, classes: int = 3"),
    "classes last": mine(arguments="self, image, /, *classes, k: int = 3, **more"),
    "self is called classes": mine(arguments="classes, image, *, k: int = 3"),
    "attributes": mine(
        attributes="epochs: int = 3; batch_size = warmup = 7; schedule = 'cosine'; monitor = None; ema = 0.5"
    ),
    "old name": mine(attributes="objective = 'val/mse'"),
    "old and new name": mine(attributes="objective = 'val/mse'; monitor = 'loss'"),
    "type alone": mine(attributes="epochs: int"),
    "helpers": mine("import math\nLOG = math.log(2)\nclass A(torch.nn.Module):\n    x = 3\nclass B(A): pass\n"),
    "methods": mine(
        tail="    @property\n    def size(self): return 3\n    @torch.no_grad()\n    def draw(self, n): return set(n)\n"
    ),
    "another name": mine(tail="\nShort = Mine\n"),
}
LEFT = {
    "computed default": mine(arguments="self, image, *, k: int = 2 + 1"),
    "default of a list": mine(arguments="self, image, *, k: str = ''.join(['a'])"),
    "alias": mine("Size = Annotated[int, Ge(1)]\n", arguments="self, image, *, k: Size = 3"),
    "alias of a name": mine("int = float\n", arguments="self, image, *, k: int = 3"),
    "builtin hidden in the class": mine(attributes="int = float"),
    "import hidden": mine("Ge = Gt\n", arguments=AT_LEAST_1),
    "import hidden by an import": mine("from annotated_types import Gt as Ge\n", arguments=AT_LEAST_1),
    "annotation in quotes": mine(arguments="self, image, *, k: 'int' = 3"),
    "other annotation in quotes": mine(arguments="self, image: 'Image', *, k: int = 3"),
    "type of typing": mine("from typing import Tuple\n", arguments="self, image, *, k: Tuple[int, ...] = ()"),
    "another note": mine(
        "from annotated_types import Not\n", arguments="self, image, *, k: Annotated[int, Not(bool)] = 3"
    ),
    "renamed by Python": mine(arguments="self, image, *, __k: int = 3"),
    "no self": mine(arguments="*image, k: int = 3"),
    "computed attribute": mine(attributes="epochs = 2 * 15"),
    "attribute in an if": mine(attributes="pass\n    if True:\n        epochs = 3"),
    "attribute in a loop": mine(attributes="pass\n    for epochs in (1, 2): pass"),
    "attribute as a method": mine(attributes="monitor = property(lambda self: 3)"),
    "attribute as a def": mine(attributes="pass\n    def monitor(self): pass"),
    "attributes unpacked": mine(attributes="epochs, ema = 3, 0.5"),
    "attribute imported": mine(attributes="from math import e as ema"),
    "attribute added to": mine(attributes="epochs = 3; epochs += 1"),
    "attribute set later": mine(tail="\nMine.epochs = 3\n"),
    "attribute set by a call": mine(tail="\nsetattr(Mine, 'epochs', 3)\n"),
    "attribute set in a value": mine(tail="\nx = setattr(Mine, 'epochs', 3)\n"),
    "attribute set in a default": mine(tail="\ndef f(x=setattr(Mine, 'epochs', 3)): pass\n"),
    "attribute set by a decorator": mine(
        "def once(f):\n    Recipe.stays = 3\n    return f\n", tail="    @once\n    def draw(self): pass\n"
    ),
    "function that is called": mine("def f():\n    globals()['Ge'] = Gt\nf()\n", arguments=AT_LEAST_1),
    "docstring set": mine("__doc__ = 'Another.'\n"),
    "other signature": mine(attributes="__signature__ = __import__('inspect').Signature()"),
    "metaclass": mine(bases="Recipe, metaclass=type"),
    "mixin": mine("class Mixin:\n    epochs = 3\n", bases="Mixin, Recipe"),
    "decorated class": mine().replace("class Mine", "@(lambda c: c)\nclass Mine"),
    "class decorated by an import": mine("import typing\n").replace("class Mine", "@typing.final\nclass Mine"),
    "name bound again": mine(tail="\nMine = Mine\n"),
    "decorated constructor": mine().replace("    def __init__", "    @torch.no_grad()\n    def __init__"),
    "two constructors": mine(tail="    def __init__(self, image, *, other: int = 3):\n        super().__init__()\n"),
    "constructor replaced": mine(tail="    def other(self, image): pass\n    __init__ = other\n"),
    "no constructor": f"{HEAD}\n\nclass Mine(Recipe):\n    pass\n",
    "class in an if": f"{HEAD}\nif True:\n    class Mine(Recipe):\n        def __init__(self, *, k: int = 3): pass\n",
    "another recipe": mine("from aelab.recipes.linear import Linear\n", bases="Linear"),
    "own module": mine("import colorsys, xxx_own\n"),
    "star": mine("from math import *\n"),
    "future": f"from __future__ import annotations\n{mine()}",
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_what_the_source_says_is_what_running_it_says(name):
    from_source, from_class = compared(put("mine.py", READ[name]))
    assert from_source == from_class


@pytest.mark.parametrize("name", LEFT)
def test_what_the_source_does_not_say_for_certain_is_left_to_running_it(name, desk, monkeypatch):
    put("xxx_own.py", "from aelab.recipe import Recipe\n")
    monkeypatch.syspath_prepend(str(desk))
    recipe_file = put("mine.py", LEFT[name])
    assert read(recipe_file) is None
    assert recipe_files.signature(recipe_file).options == signature_of_class(recipe_files.load(recipe_file)).options


@pytest.mark.parametrize(
    "text",
    [
        "x = (",
        "\0",
        "# coding: zlib\n",
        "x = " + "-" * 300_000 + "1\n",
        recipe(name="A") + recipe(name="B"),
        HEAD,
        "",
        mine(tail="\n\nclass Other(Mine):\n    pass\n"),
        mine("from aelab.recipes.vae import VAE\nclass Other(VAE):\n    pass\n"),
    ],
)
def test_a_file_without_a_recipe_is_left_to_running_it_too(text):
    assert read(put("mine.py", text)) is None


def test_docstring_is_the_files():
    text = recipe().replace("One of my own.", "One of my own.\n\n      L = mse\n\n    It is indented.\n    ")
    from_source, from_class = compared(put("mine.py", text))
    assert from_source.doc == from_class.doc
    assert inspect.cleandoc(from_source.doc) == "One of my own.\n\n  L = mse\n\nIt is indented."
    from_source, from_class = compared(put("none.py", recipe().partition("\n")[2]))
    assert from_source.doc == from_class.doc == ""


def test_a_warning_of_python_is_left_to_running_it(recwarn):
    assert read(put("mine.py", mine().replace("One of", r"\d of"))) and not recwarn.list


# what identifies it


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """Three modules of aelab: `shared` imports `deeper`, and the package `room` has a file `inner`."""
    folder = tmp_path / "more"
    put(folder / "shared.py", "from aelab import deeper\nfrom aelab.recipe import ImageShape\n")
    put(folder / "deeper.py", "import aelab.shared\n")
    put(folder / "room/__init__.py", "")
    put(folder / "room/inner.py", "x = 1\n")
    monkeypatch.setattr(aelab, "__path__", [*aelab.__path__, str(folder)])
    return folder


IMPORTS = [
    ("from aelab.shared import x", ["deeper", "shared"]),
    ("import aelab.shared as s", ["deeper", "shared"]),
    ("def f():\n    from aelab import deeper, recipe", ["deeper", "shared"]),
    ("from aelab.room.inner import x", ["room/__init__", "room/inner"]),
    ("from aelab.room import inner", ["room/__init__", "room/inner"]),
    ("from aelab.room import x", ["room/__init__"]),
]


@pytest.mark.parametrize(("line", "names"), IMPORTS)
def test_what_a_recipe_imports_of_aelab_belongs_to_its_identity(line, names, modules):
    text = recipe() + f"\n\n{line}\n"
    before = put("mine.py", text).sha256
    assert before == put("mine.py", text).sha256 != hashlib.sha256(text.encode()).hexdigest()
    assert put("mine.py", text + "\n").sha256 != before
    for name in ("shared", "deeper", "room/__init__", "room/inner"):
        with (modules / f"{name}.py").open("a") as file:
            file.write("y = 2\n")
        after = put("mine.py", text).sha256
        assert (after != before) == (name in names), name
        before = after
    assert not {"aelab.shared", "aelab.deeper", "aelab.room"} & set(sys.modules), "none is run for that"


@pytest.mark.parametrize(
    "line",
    ["", "import aelab", "import aelab.recipe as r", "from aelab import recipe", "import torch",
     "from aelab.nothing import x", "x = (", "from . import y", "from .aelab import y"],
)  # fmt: skip
def test_a_recipe_that_imports_nothing_else_is_identified_by_its_bytes(line):
    """As in version 0.1.0, whose runs are resumed only if it is equal."""
    recipe_file = put("mine.py", recipe() + f"\n\n{line}\n")
    assert recipe_file.sha256 == hashlib.sha256(recipe_file.path.read_bytes()).hexdigest()


# built


def test_build_passes_image_and_options_on():
    recipe_file = put("mine.py", recipe("k: int = 3, word: str = 'x'", "        self.seen = (image, k, word)\n"))
    assert recipe_files.build(recipe_file, (1, 4, 4), {"k": 5}).seen == ((1, 4, 4), 5, "x")


def test_an_option_is_refused_before_the_file_is_run(monkeypatch):
    monkeypatch.setattr("aelab.recipe_files.execute.load", lambda recipe_file: pytest.fail("it was run"))
    for values in ({"latent_dim": 0}, {"latent": 3}):
        with pytest.raises(UserError):
            recipe_files.build(recipe_files.find("vae"), (1, 28, 28), values)


def test_unknown_option_gets_the_nearest():
    recipe_file = recipe_files.find("vae")
    with pytest.raises(UserError, match=r"vae has no option 'latent'\. Did you mean latent_dim") as caught:
        recipe_files.build(recipe_file, (1, 28, 28), {"latent": 3})
    assert caught.value.code == 2
    with pytest.raises(UserError, match=r"It has: latent_dim, net, hidden, .*lr"):
        recipe_files.build(recipe_file, (1, 28, 28), {"xyzzy": 3})


@pytest.mark.parametrize("name", ["gan", "linear", "stacked", "vae"])
def test_code_larger_than_the_image_is_refused(name):
    recipe_file = recipe_files.find(name)
    with pytest.raises(
        UserError, match=r"--latent-dim 49 is more than the 48 values of an image \(3 x 4 x 4\)"
    ) as caught:
        recipe_files.build(recipe_file, (3, 4, 4), {"latent_dim": 49})
    assert caught.value.code == 2 and "\nUse --latent-dim 48 or less." in str(caught.value)
    assert isinstance(recipe_files.build(recipe_file, (3, 4, 4), {"latent_dim": 48}), torch.nn.Module)


def test_recipe_may_refuse_its_options():
    recipe_file = put("mine.py", recipe("k: int = 3", "        raise ValueError('odd')\n"))
    with pytest.raises(UserError, match="mine does not accept these options: odd") as caught:
        recipe_files.build(recipe_file, (1, 4, 4), {})
    assert caught.value.code == 2


def test_of_a_reason_in_several_lines_the_first_is_shown():
    recipe_file = put("mine.py", recipe(body="        raise ValueError('odd\\nvery')\n"))
    with pytest.raises(UserError, match=r"mine does not accept these options: odd \.\.\.$"):
        recipe_files.build(recipe_file, (1, 4, 4), {})


@pytest.mark.parametrize("error", ["TypeError", "RuntimeError", "KeyError"])
def test_any_other_error_of_a_constructor_has_its_place(error):
    recipe_file = put("mine.py", recipe("k: int = 3", f"        raise {error}('odd')\n"))
    with pytest.raises(recipe_files.RecipeError, match=f"mine.py, line 14, in __init__: raise {error}") as caught:
        recipe_files.build(recipe_file, (1, 4, 4), {})
    assert type(caught.value.__cause__).__name__ == error and "odd" in str(caught.value).splitlines()[1]


def test_recipe_with_another_signature_is_a_problem():
    recipe_file = put(
        "mine.py", f"{HEAD}\n\nclass Mine(Recipe):\n    def __init__(self):\n        super().__init__()\n"
    )
    with pytest.raises(UserError, match="does not accept"):
        recipe_files.build(recipe_file, (1, 4, 4), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [("latent_dim", "8"), ("latent_dim", (8, (9,))), ("latent_dim", 8.5), ("latent_dim", True), ("latent_dim", 0),
     ("latent_dim", 10**400), ("latent_dim", None), ("beta", -5), ("beta", math.nan), ("beta", "1"), ("lr", 0),
     ("hidden", "8"), ("hidden", 8), ("hidden", (8, 0)), ("likelihood", 1), ("likelihood", "other")],
)  # fmt: skip
def test_an_option_that_nobody_could_have_typed_is_refused(name, value):
    recipe_file = recipe_files.find("vae")
    with pytest.raises(UserError, match="vae does not accept these options") as caught:
        recipe_files.build(recipe_file, (1, 8, 8), {name: value})
    assert name in str(caught.value) and len(str(caught.value)) < 300
