import math
import re
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import pytest
import torch

from aelab import recipe_files
from aelab.errors import UserError
from aelab.recipe_files import Option, RecipeFile

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
    (found,) = recipe_files.options(recipe_files.load(put("mine.py", recipe(text, head=head))))
    return found


# found


def test_built_in_recipes_are_found_anywhere():
    folder = Path(next(iter(find_spec("aelab.recipes").submodule_search_locations)))
    pages = recipe_files.available()
    assert list(pages) == sorted(path.stem for path in folder.glob("[!_]*.py"))
    assert {"gan", "linear", "stacked", "vae"} <= set(pages)
    assert all(page.path.is_absolute() and page.summary.endswith(".") for page in pages.values())


@pytest.mark.parametrize("code", ["raise RuntimeError", "import sys; sys.exit(3)", "Path('ran').touch()"])
def test_listing_runs_no_recipe(code, desk):
    put("recipes/boom.py", f'"""Goes off."""\nfrom pathlib import Path\nPath("ran").touch()\n{code}\n')
    page = recipe_files.available()["boom"]
    assert page.summary == "Goes off."
    assert len(page.sha256) == 64 and page.source.endswith(f"{code}\n")
    assert recipe_files.find("boom") == page
    assert not (desk / "ran").exists()


@pytest.mark.parametrize("content", [b"def (", b"\xff\xfe\x00", b"x = 1\0"])
def test_unreadable_file_does_not_spoil_the_listing(content):
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
    page = recipe_files.find(path)
    assert page.path == (desk / path).resolve() and page.name == Path(path).stem
    assert recipe_files.load(page).__name__ == "Mine"


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
    page = put("bad.py", text)
    before = set(sys.modules)
    with pytest.raises(UserError) as caught:
        recipe_files.load(page)
    message = str(caught.value)
    assert str(page.path) in message and what in message
    assert re.search(rf"\bline {line}\b", message)
    assert not {name for name in set(sys.modules) - before if "bad" in name}


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
    found = {option.name: option for option in recipe_files.options(recipe_files.load(put("mine.py", text)))}
    assert list(found) == ["k", "rate", "mode", "flag", "word", "widths"]
    assert found["k"] == Option("k", int, 3, "how many", ((">=", 1), ("<=", 9)))
    assert found["rate"] == Option("rate", float, 0.5, "share", ((">=", 0), ("<", 1)))
    assert found["mode"].type == Literal["a", "b"]
    metavars = [found[name].metavar for name in ("k", "rate", "word", "widths")]
    assert metavars == ["INTEGER >=1 <=9", "FLOAT >=0 <1", "TEXT", "INTEGER,..."]


def test_annotations_may_be_strings():
    text = 'k: Annotated[int, Gt(0), "how many"] = 3'
    strings, plain = option(text, head=f"from __future__ import annotations\n{HEAD}"), option(text)
    assert strings == plain == Option("k", int, 3, "how many", ((">", 0),))


def test_type_that_only_a_type_checker_knows():
    head = f"from __future__ import annotations\n{HEAD}\nif __import__('typing').TYPE_CHECKING:\n    from x import Y\n"
    text = recipe("k: int = 3, other: Y = None", head=head)
    with pytest.raises(UserError, match="Y"):
        recipe_files.options(recipe_files.load(put("mine.py", text)))


@pytest.mark.parametrize("text", ["k = 3", "k: int", "k"])
def test_option_needs_a_type_and_a_default(text):
    with pytest.raises(UserError, match="the option k needs a type and a default"):
        option(text)


@pytest.mark.parametrize(
    "hint", ["Optional[int]", "int | None", "list[int]", "tuple[float, ...]", "Literal[1, 2]", "dict"]
)
def test_option_of_a_type_that_cannot_be_typed_is_refused(hint):
    with pytest.raises(UserError, match="k"):
        option(f"k: {hint} = None")


def test_recipe_without_options():
    assert recipe_files.options(recipe_files.load(put("mine.py", recipe()))) == []


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
        (int, (), "3.5", "3.5"),
        (int, (), "", "''"),
        (int, ((">=", 1),), "0", "0 is not >= 1"),
        (float, ((">", 0),), "0", "0 is not > 0"),
        (float, ((">=", 0), ("<", 1)), "1", "1 is not < 1"),
        (float, (("<=", 1),), "1.5", "1.5 is not <= 1"),
        (float, ((">", 0),), "nan", "nan is not a finite number"),
        (float, (), "much", "much"),
        (bool, (), "maybe", "neither true nor false"),
        (Literal["a", "b"], (), "c", "'c' is not one of a, b"),
        (tuple[int, ...], (), "1,x", "x"),
        (tuple[int, ...], ((">=", 1),), "4,0,2", "0 is not >= 1"),
    ],
)
def test_parse_says_what_is_wrong(kind, bounds, text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        Option("n", kind, None, "", bounds).parse(text)


@pytest.mark.parametrize("name", ["gan", "linear", "stacked", "vae"])
def test_defaults_of_the_built_in_recipes_are_in_their_bounds(name):
    for found in recipe_files.options(recipe_files.load(recipe_files.find(name))):
        typed = ",".join(map(str, found.default)) if isinstance(found.default, tuple) else str(found.default)
        assert found.parse(typed) == found.default
        assert found.help


# built


def test_build_passes_image_and_options_on():
    page = put("mine.py", recipe("k: int = 3, word: str = 'x'", "        self.seen = (image, k, word)\n"))
    assert recipe_files.build(page, (1, 4, 4), {"k": 5}).seen == ((1, 4, 4), 5, "x")


def test_unknown_option_gets_the_nearest():
    page = recipe_files.find("vae")
    with pytest.raises(UserError, match=r"vae has no option 'latent'\. Did you mean latent_dim") as caught:
        recipe_files.build(page, (1, 28, 28), {"latent": 3})
    assert caught.value.code == 2
    with pytest.raises(UserError, match=r"It has: latent_dim, net, hidden, .*lr"):
        recipe_files.build(page, (1, 28, 28), {"xyzzy": 3})


@pytest.mark.parametrize("name", ["gan", "linear", "stacked", "vae"])
def test_code_larger_than_the_image_is_refused(name):
    page = recipe_files.find(name)
    with pytest.raises(
        UserError, match=r"--latent-dim 49 is more than the 48 values of an image \(3 x 4 x 4\)"
    ) as caught:
        recipe_files.build(page, (3, 4, 4), {"latent_dim": 49})
    assert caught.value.code == 2
    assert isinstance(recipe_files.build(page, (3, 4, 4), {"latent_dim": 48}), torch.nn.Module)


@pytest.mark.parametrize("error", ["ValueError('odd')", "TypeError('odd')", "RuntimeError('odd')"])
def test_recipe_may_refuse_its_options(error):
    page = put("mine.py", recipe("k: int = 3", f"        raise {error}\n"))
    with pytest.raises(UserError, match="mine does not accept these options: odd") as caught:
        recipe_files.build(page, (1, 4, 4), {})
    assert caught.value.code == 2


def test_recipe_with_another_signature_is_a_problem():
    page = put("mine.py", f"{HEAD}\n\nclass Mine(Recipe):\n    def __init__(self):\n        super().__init__()\n")
    with pytest.raises(UserError, match="does not accept"):
        recipe_files.build(page, (1, 4, 4), {})


@pytest.mark.parametrize(
    ("name", "value"),
    [("latent_dim", "8"), ("latent_dim", (8, (9,))), ("latent_dim", 8.5), ("latent_dim", True), ("latent_dim", 0),
     ("latent_dim", 10**400), ("latent_dim", None), ("beta", -5), ("beta", math.nan), ("beta", "1"), ("lr", 0),
     ("hidden", "8"), ("hidden", (8,)), ("likelihood", 1), ("likelihood", "other")],
)  # fmt: skip
def test_an_option_that_nobody_could_have_typed_is_refused(name, value):
    page = recipe_files.find("vae")
    with pytest.raises(UserError, match="vae does not accept these options") as caught:
        recipe_files.build(page, (1, 8, 8), {name: value})
    assert name in str(caught.value) and len(str(caught.value)) < 300
