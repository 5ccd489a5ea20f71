"""Writes docs/commands.md, the command reference, from what `--help` prints: python docs/make_commands.py."""

from pathlib import Path

from aelab.cli.help import pages

COLUMNS = 80
HEAD = """# Commands

What `aelab COMMAND --help` prints, for every command and every recipe of `aelab train`. `INTEGER >=1` is a whole number
from 1 on, `INTEGER,...` are whole numbers with commas between them, `a|b` is one of these words, and an option without a
type is a flag.
"""


def reference() -> str:
    """The text of docs/commands.md."""
    entries = list(pages(COLUMNS))
    links = "\n".join(f"- [`{typed}`](#{typed.replace(' ', '-')})" for typed, _ in entries)
    parts = [f"## {typed}\n\n```text\n{text}\n```\n" for typed, text in entries]
    return "\n".join([HEAD, links + "\n", *parts])


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(reference())
