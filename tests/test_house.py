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
RECIPES = ROOT.parent / "recipes"
FLOORS = [  # from the ground
    {"aliases", "errors", "files", "metrics", "progress_bar", "recipe", "networks"},
    {"data", "figures", "recipe_files", "recipes"},
    {"evaluation", "tracking"},
    {"training", "results"},
    {"workflows"},
    {"lecture"},
    {"cli"},
]
DOORS = {"typer": "cli", "rich": "cli", "mlflow": "tracking", "ray": "workflows"}
FILES = [*sorted(ROOT.rglob("*.py")), *sorted(RECIPES.glob("*.py"))]
FOLDERS = {path.parent.name for path in ROOT.glob("*/__init__.py")}


def room(path):
    if path.parent == RECIPES:
        return "recipes"
    first = path.relative_to(ROOT).parts[0].removesuffix(".py")
    return {"__init__": "lecture", "__main__": "cli"}.get(
        first, first
    )  # the package's own face is on the floor of the highest room that it offers


def floor(name):
    return next(level for level, names in enumerate(FLOORS) if name in names)


def imports(path):
    """The modules that a file imports, wherever in it: (module, name) with no name for a plain import."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module, alias.name) for alias in node.names)


def rooms_entered(path):
    """(room, module) for each import of ours in a file."""
    for module, name in imports(path):
        first, _, rest = module.partition(".")
        if first == "aelab":
            inner = rest or (name if any(name in names for names in FLOORS) else "")
            yield inner.partition(".")[0] or "lecture", module


def arrows():
    return {(room(path), entered) for path in FILES for entered, _ in rooms_entered(path) if entered != room(path)}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT.parent)))
def test_imports_only_go_down(path):
    here = room(path)
    for entered, module in rooms_entered(path):
        assert floor(entered) <= floor(here), f"{here} imports {module}"
    for module, _ in imports(path):
        door = DOORS.get(module.partition(".")[0], here)
        assert here == door, f"{module} comes in by {door} alone"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT.parent)))
def test_a_room_is_entered_by_its_face(path):
    for entered, module in rooms_entered(path):
        if entered in FOLDERS and entered != room(path):
            assert module in ("aelab", f"aelab.{entered}"), f"{path.name} imports {module}, not its face"
            face = importlib.import_module(f"aelab.{entered}")
            names = {name for of, name in imports(path) if of == module == f"aelab.{entered}"}
            assert names <= set(face.__all__), f"{path.name} imports {names - set(face.__all__)} past the face"


def test_the_house_is_small():
    rooms = {room(path) for path in FILES}
    assert rooms == set().union(*FLOORS), "every room has a floor"
    assert len(FLOORS) <= 7
    assert len(rooms) <= 18
    assert len(arrows()) <= 66


def test_no_circles_on_a_floor():
    edges = arrows()
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
    [
        ("--help",),
        ("train", "--help"),
        ("train", "gan", "--help"),
        ("eval", "--help"),
        ("train", "pretrained", "--help"),
        ("recipes",),
    ],
)
def test_help_and_listing_import_nothing_heavy(words):
    """Typer itself imports pydantic, for the options of a verb."""
    run = "import aelab.cli\ntry: aelab.cli.main()\nexcept SystemExit as end: assert not end.code"
    plain = {"rich"} if "--help" in words else set()
    heavy = HEAVY | plain | {"pydantic"} if words == ("--help",) else HEAVY | plain
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


def test_the_tables_import_pandas_only_when_one_is_made():
    code = (
        "import sys, aelab.results\nheavy = {'torch', 'mlflow', 'pandas', 'numpy', 'sklearn'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
