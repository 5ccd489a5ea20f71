"""Writes the help of every verb and recipe at 60 and 120 columns: tests/terminal/60/help*.txt and tests/terminal/120/help*.txt.

Type `python tests/terminal/help.py` after a change of the help. Read what it has changed, in both widths, before you
commit it.
"""

from pathlib import Path

from aelab.cli.help import pages

HERE = Path(__file__).parent
WIDTHS = (60, 120)


def texts(columns: int) -> dict[str, str]:
    """Names of files and their contents: help-runs-show.txt for `aelab runs show --help`."""
    return {
        f"{typed.replace('aelab', 'help', 1).replace(' ', '-')}.txt": f"$ {typed} --help\n{text}\n"
        for typed, text in pages(columns)
    }


def main() -> None:
    for columns in WIDTHS:
        folder = HERE / str(columns)
        folder.mkdir(exist_ok=True)
        for old in folder.glob("help*.txt"):
            old.unlink()
        for name, text in texts(columns).items():
            (folder / name).write_text(text)


if __name__ == "__main__":
    main()
