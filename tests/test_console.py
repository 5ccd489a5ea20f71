"""What is shown is shown as it is: no text of others is read as markup."""

import io

import pytest

from aelab.cli.console import Console
from aelab.progress_bar import progress_bar

MARKUP = ["[/b]", "[/x]", "[link=https://evil.example]zz[/link]", "[bold]fat[/bold]", ":smile:"]


class Tty(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("text", MARKUP)
def test_a_table_shows_markup_as_text(text, capsys):
    Console().table([{text: text, "figure": 1.0}], title=text, right=[text])
    title, head, row = capsys.readouterr().out.splitlines()
    assert title == text and head.split()[0] == text.split()[0] and row.split()[0] == text.split()[0]


@pytest.mark.parametrize("text", MARKUP)
def test_so_does_a_bar(text, monkeypatch):
    monkeypatch.setattr("sys.stderr", sent := Tty())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("aelab.cli.console.SHOWN_AFTER", -1.0)
    Console()
    with progress_bar(f"classifier of {text}, once", 3) as bar:
        bar.update(1, text=f"at {text}")
        bar._progress.refresh()
    assert f"classifier of {text}, once" in sent.getvalue() and f"at {text}" in sent.getvalue()


def test_verbose_adds_details_and_quiet_leaves_warnings(cli):
    words = ("train", "linear", "--data", "digits", "--max-steps", 3)
    usual, verbose, quiet = (cli(*words, *more).err for more in ((), ("--verbose",), ("--quiet",)))
    assert "checkpoint at step 3" in verbose and "data digits from" in verbose and "3 steps" in verbose
    assert "checkpoint at step" not in usual and "3 steps" in usual
    assert "hardly trained" in quiet and all(line.startswith("warning:") for line in quiet.splitlines())
