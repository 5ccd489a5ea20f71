"""What `--help` prints: one style for every verb and recipe, in any terminal, and the files that are made of it."""

import re
import runpy
import sys
from pathlib import Path

import pytest
import typer
from terminal import help as terminal

from aelab.cli import app
from aelab.cli.help import Group, Verb, pages
from aelab.errors import UserError, similar
from aelab.training import pick_device

ROOT = Path(__file__).parent.parent
TYPE = r"(INTEGER|FLOAT|TEXT|INTEGER,\.\.\.)( [<>]=?[\d.]+| \d+\.\.[\d.]+)*|NAME=VALUE|NAME\|FOLDER|[A-Z]+|[\w-]+(\|[\w-]+)+"


@pytest.mark.parametrize("columns", terminal.WIDTHS)
def test_the_committed_help_is_what_is_printed_and_no_wider_than_the_terminal(columns):
    folder = ROOT / "tests/terminal" / str(columns)
    committed = {path.name: path.read_text() for path in folder.glob("help*.txt")}
    assert committed == terminal.texts(columns), "type: python tests/terminal/help.py"
    assert max(len(line) for text in committed.values() for line in text.splitlines()) <= min(columns, 100)


def test_the_command_reference_is_what_is_printed():
    made = runpy.run_path(str(ROOT / "docs/make_commands.py"))["reference"]()
    assert (ROOT / "docs/commands.md").read_text() == made, "type: python docs/make_commands.py"
    for typed, _ in pages(80):
        assert f"\n## {typed}\n" in made and f"(#{typed.replace(' ', '-')})" in made


def test_every_option_is_written_in_one_way():
    """Its type as one word with bounds, a flag without; a sentence or noun phrase; a default at most once, at the end."""
    for typed, text in pages(100):
        body = text.partition("\nArguments:")[2] or re.split(r"\n\n(?=\w+:\n  )", text, maxsplit=1)[1]
        flat = re.sub(r"\n {6,}", "  ", body)
        rows = re.findall(r"^  (-[^\n]*?)  +(\S[^\n]*)$", flat, re.MULTILINE)
        assert [term for term, _ in rows][-1] == "-h, --help" or "-h, --help" in dict(rows), typed
        for term, line in rows:
            kind = re.sub(r"^(-\w, )?-[\w-]+( / --no-[\w-]+)?", "", term).strip()
            assert not kind or re.fullmatch(TYPE, kind), (typed, term)
            words = re.fullmatch(r"([A-Z].*[.])(  ?\(default: [^()]+\))?", line)
            assert words or "customize the installation" in line, (typed, term, line)
            assert "default:" not in (words[1] if words else ""), (typed, term)
        assert not re.search(r"None|\[default|1000000000|4294967295|<[a-z]|Possible|\.\.\.$", body), typed


def test_every_verb_has_this_help():
    def below(command, context):
        assert isinstance(command, (Verb, Group)), command.name
        for name in command.list_commands(context) if isinstance(command, Group) else ():
            below(command.resolve_command(context, [name])[1], context)

    root = typer.main.get_command(app)
    below(root, root.make_context("aelab", [], resilient_parsing=True))


def test_epochs_say_that_phases_have_their_own():
    texts = {name: " ".join(text.split()) for name, text in terminal.texts(120).items()}
    assert "Some phases have their own number: see --finetune, --pseudo-label." in texts["help-train-pretrained.txt"]
    assert "see --greedy." in texts["help-train-stacked.txt"] and "Some phases" not in texts["help-train-vae.txt"]
    assert "(default: 30 in this recipe)" in texts["help-train-vae.txt"]
    assert "(default: the recipe's own)" in texts["help-compare-latent.txt"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("beta", []),
        ("latent", ["latent-dim"]),
        ("epoch", ["epochs"]),
        ("batchsize", ["batch-size"]),
        ("vea", ["vae", "ema"]),
        ("va", ["vae", "vaegan"]),
        ("x", []),
        ("", []),
    ],
)
def test_only_what_is_close_is_suggested(typed, meant):
    known = ["data", "ema", "net", "latent-dim", "patience", "epochs", "batch-size", "vae", "vaegan"]
    assert similar(typed, known) == meant


def test_a_device_that_is_not_there_names_those_that_are(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda number: f"NVIDIA X{number}")
    for name in ("gpu", "cuda:2", "cuda:x", "mps:9", ""):
        with pytest.raises(UserError) as caught:
            pick_device(name)
        first, second = str(caught.value).splitlines()
        assert first.startswith(f"--device {name}: ") and "has cpu, cuda (NVIDIA X0)," in first and "cuda:1 (" in first
        assert second == "Use --device cuda or auto." and caught.value.code == 2
    assert [pick_device(name).type for name in ("auto", "cuda", "cuda:1", "cpu")] == ["cuda", "cuda", "cuda", "cpu"]


@pytest.mark.parametrize("words", [(), ("train",)], ids=["aelab", "aelab train"])
def test_a_group_alone_prints_its_help_as_wrong_usage(cli, words):
    answer = cli(*words)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: aelab") and "error:" not in answer.err and "Try" not in answer.err
    assert answer.err == cli(*words, "--help").out == cli(*words, "-h").out


@pytest.mark.parametrize(
    ("tty", "no_color", "term", "bold"),
    [(True, "", "xterm", True), (True, "1", "xterm", False), (True, "", "dumb", False), (False, "", "xterm", False)],
)
def test_headings_are_bold_on_a_colour_terminal_alone(cli, monkeypatch, tty, no_color, term, bold):
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty, raising=False)
    out = cli("sample", "--help").out
    assert ("\033[1mOptions:\033[0m\n" in out) is bold and ("\033" in out) is bold


ODD = {
    "none": ("", "odd"),
    "tabs": ('"""Tabs.\n\n\tx =\ty\n"""', "\n        x =     y\n"),
    "equations": ('"""\n    x = y + z\n    z = 3\n"""', "x = y + z\n"),
    "equations at once": ('"""Odd.\n  x = y\nand so on.\n"""', "\nOdd.\n  x = y\nand so on.\n"),
    "a long word": (f'"""Long {"x" * 300} end."""', "x" * 60 + "\n"),
    "a long equation": (f'"""Odd.\n\n    y = {" + ".join(["x"] * 60)}\n"""', "\n    y = x + x"),
    "a wide gap alone": (f'"""Odd.\n\n{" " * 90}y = x\n"""', "y = x"),
    "escapes": ('"""Odd \x1b[31mred\x1b]0;title\x07.\n\n    x\x1b[2J = y\u202e\n"""', "\\x1b[31mred"),
    "brackets": ('"""Odd [bold]b[/] {braces} %s \\\\b."""', "Odd [bold]b[/] {braces} %s \\b."),
    "form feed": ('"""Odd.\\f\\b More."""', "Odd."),
}


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("columns", [40, 60, 200])
def test_the_docstring_of_someones_recipe_is_data(cli, here, monkeypatch, odd, columns):
    doc, shown = ODD[odd]
    (here / "odd.py").write_text(
        f"{doc}\nfrom typing import Annotated\nfrom aelab.recipe import Recipe\n\nclass Odd(Recipe):\n"
        '    def __init__(self, image, *, k: Annotated[int, "a \\x1b[31m[bold]b[/] line"] = 3, free: str = "a") -> None: ...\n'
    )
    monkeypatch.setenv("COLUMNS", str(columns))
    answer = cli("train", "./odd.py", "--help")
    assert answer.code == 0, answer.err
    assert answer.out.startswith("Usage: aelab train ./odd.py [OPTIONS]\n")
    if columns == 60:
        assert shown in answer.out
    assert "a \\x1b[31m[bold]b[/] line (default: 3)" in " ".join(answer.out.split()) and "--free TEXT" in answer.out
    assert all(sign.isprintable() or sign == "\n" for sign in answer.out)
    assert max(map(len, answer.out.splitlines())) <= columns
