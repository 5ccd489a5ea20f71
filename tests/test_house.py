"""The house: each room has a floor and a face, imports only go down, third parties come in by one door, start-up is light."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import aelab
from aelab.tracking import Store

ROOT = Path(aelab.__file__).parent
FLOORS = [
    {"aliases", "errors", "files", "metrics", "networks", "progress_bar", "recipe"},
    {"data", "figures", "recipe_files"},
    {"evaluation", "tracking"},
    {"training", "results"},
    {"workflows"},
    {"__init__"},
    {"cli", "__main__"},
]
DOORS = {"typer": "cli", "rich": "cli", "mlflow": "tracking"}
FILES = sorted(ROOT.rglob("*.py"))


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def floor(name):
    return next(level for level, names in enumerate(FLOORS) if name in names)


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_only_go_down(path):
    here = room(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == "aelab" and len(parts) > 1 and any(parts[1] in names for names in FLOORS):
            assert floor(parts[1]) <= floor(here), f"{here} imports {name}"
        if parts[0] in DOORS:
            assert here == DOORS[parts[0]], f"{parts[0]} comes in by {DOORS[parts[0]]} alone"


def test_every_room_has_a_floor():
    assert {room(path) for path in FILES} == set().union(*FLOORS)


def test_no_circles_on_a_floor():
    edges = {
        (room(path), name.split(".")[1])
        for path in FILES
        for name in imports(path)
        if name.startswith("aelab.") and name.split(".")[1] != room(path)
    }
    nodes = {a for a, _ in edges}
    while nodes:
        free = {n for n in nodes if not any(a == n and b in nodes for a, b in edges)}
        assert free, f"these import each other in a circle: {nodes}"
        nodes -= free


HEAVY = {"torch", "mlflow", "pandas", "numpy", "matplotlib", "sklearn"}


def imported(code, *words):
    """The modules that a fresh process has imported after some code, with these words typed behind `aelab`."""
    code = f"import sys; sys.argv = ['aelab', *{words!r}]\n{code}\nprint(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stderr.split())


@pytest.mark.parametrize(
    "words",
    [("--help",), ("train", "--help"), ("train", "gan", "--help"), ("train", "pretrained", "--help"), ("recipes",)],
)
def test_help_and_listing_import_nothing_heavy(words):
    """Typer itself imports pydantic, for the options of a verb."""
    run = "import aelab.cli\ntry: aelab.cli.main()\nexcept SystemExit as end: assert not end.code"
    heavy = HEAVY | {"pydantic"} if words == ("--help",) else HEAVY
    assert not heavy & imported(run, *words)


def test_reading_all_of_a_recipe_but_its_mathematics_imports_nothing_heavy():
    code = (
        "from aelab import recipe_files\n"
        "for each in recipe_files.available().values():\n"
        "    assert each.summary and each.sha256 and recipe_files.signature(each).options"
    )
    assert not (HEAVY | {"pydantic", "typer"}) & imported(code)


@pytest.mark.parametrize("words", [["runs"], ["compare", "one"]], ids=["runs", "compare"])
def test_listing_runs_imports_nothing_that_trains_or_draws(words, here):
    run = Store().create(None, "one", params={"epochs": 1}, tags={"aelab.recipe": "vae", "aelab.kind": "run"})
    run.metrics({"best/loss": 0.5}, 0)
    run.close("FINISHED")
    code = (
        f"import gc, sys, aelab.cli; frozen = gc.get_freeze_count(); sys.argv = ['aelab', *{words}]\n"
        "try: aelab.cli.main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'torchvision', 'torchmetrics', 'sklearn', 'matplotlib', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert 'mlflow' in sys.modules and gc.isenabled() and gc.get_freeze_count() <= frozen\n"
        "assert gc.get_stats()[2]['collections'] < 3, 'MLflow was imported with garbage collection'"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "one" in ended.stdout


@pytest.mark.parametrize("name", ["tracking", "results"])
def test_a_room_is_entered_by_its_face(name):
    """Other rooms import what stands in `__all__` of its `__init__.py`, and no module of it."""
    face = importlib.import_module(f"aelab.{name}")
    for path in FILES:
        for imported in imports(path) if room(path) != name else ():
            if imported.startswith(f"aelab.{name}."):
                assert imported.removeprefix(f"aelab.{name}.") in face.__all__, f"{path.name} imports {imported}"


def test_the_tables_import_pandas_only_when_one_is_made():
    code = (
        "import sys, aelab.results\nheavy = {'torch', 'mlflow', 'pandas', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
