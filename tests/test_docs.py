"""The documentation: what it tells readers to type is run, its tables are up to date, and the site is built.

A comment on the line before a block of commands or of Python says what becomes of it, and readers do not see it:

    <!-- slow: WHY -->         run by `pytest -m slow` only
    <!-- not run: WHY -->      never run
    <!-- saved as FILE -->     written to FILE, as the page tells its readers
    <!-- from FILE -->         a part of FILE, word for word

A block without such a comment is run by default. The blocks of a page are run one after the other in one folder, which is
empty at first but for `examples`. `uv run` is left out, as the tests are in that environment already.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer

import aelab
from aelab import recipe_files
from aelab.cli import app
from aelab.recipe import Autoencodes

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(str(page.relative_to(ROOT)) for page in ROOT.glob("docs/**/*.md"))]
FENCE = re.compile(r"(?:^<!-- ([^\n]+) -->\n)?^ *```(\w*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
MARK = re.compile(r"(?:slow|not run): \S.*|(?:saved as|from) (\S+)")


@dataclass
class Block:
    page: str
    language: str
    text: str
    mark: str

    @property
    def file(self):
        """The file that the comment names, if it does."""
        found = MARK.fullmatch(self.mark)
        return found[1] if found else None

    @property
    def commands(self):
        """The command lines of `aelab` in a block of commands."""
        lines = self.text.replace("\\\n", " ").replace("uv run ", "").splitlines()
        return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("aelab ")]


def blocks(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    return [Block(page, language, block, mark) for mark, language, block in FENCE.findall(text)]


BLOCKS = [block for page in PAGES for block in blocks(page)]
TYPED = [block for block in BLOCKS if block.language in {"sh", "python"}]


def run(page, cli, *, slow):
    """Runs the blocks of a page in the working folder, in order; with `slow` the slow ones too."""
    Path("examples").symlink_to(ROOT / "examples")
    for block in blocks(page):
        if block not in TYPED:
            continue
        if block.mark.startswith("saved as"):
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.mark and not (slow and block.mark.startswith("slow")):
            continue
        elif block.language == "python":
            exec(compile(block.text, page, "exec"), {"__name__": "__main__"})
        elif len(block.commands) == len(block.text.splitlines()):  # in this process: torch is imported already
            for words in block.commands:
                answer = cli(*words)
                assert answer.code == 0, (words, answer.err)
        else:
            path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
            done = subprocess.run(
                ["bash", "-euc", block.text.replace("uv run ", "")],
                env=os.environ | {"PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, (block.text, done.stdout, done.stderr)


@pytest.mark.parametrize("page", sorted({block.page for block in TYPED if not block.mark}))
def test_what_a_page_says_to_type_works(page, here, cli):
    run(page, cli, slow=False)


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted({block.page for block in BLOCKS if block.mark.startswith("slow")}))
def test_so_do_its_long_trainings(page, here, cli):
    run(page, cli, slow=True)


def test_no_block_is_unaccounted_for():
    assert {block.language for block in BLOCKS} <= {"sh", "python", "text", "math"}  # text is what a command prints
    assert [block for block in BLOCKS if block.mark and not MARK.fullmatch(block.mark)] == []
    for page in PAGES:  # a block by indentation has no language, so nobody would look at it
        assert not re.search(r"\n\n    (uv run |aelab |pytest |python )", (ROOT / page).read_text(encoding="utf-8")), (
            page
        )


def test_what_is_shown_of_a_file_is_in_it():
    shown = [block for block in BLOCKS if block.mark.startswith("from")]
    assert shown
    for block in shown:
        assert flat(block.text) in flat((ROOT / block.file).read_text(encoding="utf-8")), block


def flat(code):
    """Code without indentation and empty lines: `ruff format` sets both anew in a block that shows a part of a class."""
    return "\n".join(line.strip() for line in code.splitlines() if line.strip())


@pytest.mark.parametrize("block", [block for block in TYPED if block.commands], ids=lambda block: block.page)
def test_every_command_is_one_that_aelab_takes(block, here):
    """Also in blocks that are not run: verbs, options and their values are those of this version."""
    (here / "examples").symlink_to(ROOT / "examples")
    for saved in blocks(block.page):
        if saved.mark.startswith("saved as"):
            (here / saved.file).write_text(saved.text, encoding="utf-8")
    for words in block.commands:
        if "--help" in words or "||" in words:
            continue
        command = typer.main.get_command(app)
        context = command.make_context("aelab", list(words))
        while hasattr(command, "resolve_command") and (rest := [*context._protected_args, *context.args]):
            name, command, rest = command.resolve_command(context, rest)
            context = command.make_context(name, rest, parent=context)


def test_the_recipe_of_the_contributing_guide(here):
    (block,) = (block for block in blocks("CONTRIBUTING.md") if block.mark == "saved as mine.py")
    (here / "mine.py").write_text(block.text)
    data = aelab.open_data("digits")
    recipe = recipe_files.build(recipe_files.trust("./mine.py"), data.image, {"latent_dim": 2})
    for _ in aelab.Trainer(recipe, data, aelab.Settings(epochs=1, batch_size=512)):
        pass
    assert isinstance(recipe, Autoencodes)
    assert recipe.decode(recipe.encode(data.test.showcase(3))).shape == (3, *data.image)


def test_the_numbers_of_images_that_a_page_names():
    data = aelab.open_data("digits")
    sizes = f"{len(data.train):,}, {len(data.val)} and {len(data.test)} images of 8 x 8"
    assert sizes in (ROOT / "docs/howto/notebook.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", aelab.__all__)
def test_the_reference_has_every_public_name(name):
    assert f"::: aelab.{name}\n" in (ROOT / "docs/python.md").read_text(encoding="utf-8")
    assert getattr(aelab, name).__doc__


# The site. Its packages are those of the group `docs`.


def test_the_tables_of_the_models_are_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from docs import model_tables

    assert {page.stem for page in model_tables.PAGES} == set(recipe_files.available())
    stale = [
        page.name
        for page in model_tables.PAGES
        if page.read_text("utf-8") != model_tables.filled(page.read_text("utf-8"))
    ]
    assert not stale, "renew them: python -m docs.model_tables"


@pytest.mark.parametrize("name", recipe_files.available())
def test_a_page_defines_each_term_of_the_loss(name):
    data = aelab.open_data("digits")
    recipe = recipe_files.build(recipe_files.find(name), data.image, {}, len(data.classes))
    x, y = data.train.batch(slice(8))
    _, terms = recipe.loss(x, y)
    (named,) = re.findall(r"<!-- metrics: (.+) -->", (ROOT / f"docs/models/{name}.md").read_text(encoding="utf-8"))
    assert set(terms) <= set(named.split())


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("zensical", reason="the packages of the site: uv sync --group docs")
    pytest.importorskip("math_core")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    front = (ROOT / "build/site/index.html").read_text(encoding="utf-8")
    assert not re.findall(
        r'<(?:script|link|img)[^>]+(?:src|href)="(?:https?:)?//[^"]*"', front
    )  # nothing from the network
    vae = (ROOT / "build/site/models/vae/index.html").read_text(encoding="utf-8")
    assert "<math" in vae
    assert 'href="../../sources/#recipes-vae"' in vae
    assert "reparameterisation" in (ROOT / "build/site/sources/index.html").read_text(
        encoding="utf-8"
    )  # recipes/vae.py
