"""Writes what every verb prints on terminals of 60 and 120 columns: tests/terminal/60/*.out.txt and tests/terminal/120/*.out.txt.

Type `python tests/terminal/output.py` after a change of what a verb prints. Read what it has changed, in both widths,
before you commit it. A line is written as it is printed: one that is longer than the terminal is wrapped by the terminal
alone, so that a path or a command in it can be copied. Ids, dates and speeds are made equal from one time to the next;
durations are not.
"""

import codecs
import fcntl
import hashlib
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import tempfile
import termios
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
WIDTHS = (60, 120)
LONG = "a long name, chosen to say what the run was about"
SCENES = {  # name of the file: what is typed; ^C stands for a Ctrl-C in epoch 30
    "train-vae": "aelab train vae --data digits --epochs 30 --name first",
    "train-gan": "aelab train gan --data digits --epochs 8 --name game",
    "train-vaegan": "aelab train vaegan --data digits --epochs 3 --name three",
    "train-denoising": "aelab train denoising --data digits --epochs 3 --name clean",
    "train-pretrained": "aelab train pretrained --data digits --epochs 2 --finetune 3 --name labels",
    "train-collapsed": f"aelab train vae --data digits --epochs 20 --beta 30 --name {shlex.quote(LONG)}",
    "train-stored": "aelab train linear --data digits --epochs 2 --name there --tracking-uri sqlite:///other.db",
    "train-failed": "aelab train vae --data digits --lr 1000 --name burst",
    "train-stopped": "aelab train vae --data digits --epochs 60 --name half  ^C",
    "resume": "aelab resume half",
    "compare-latent": "aelab compare-latent 2 5 --data digits --epochs 3 --seeds 2",
    "eval-vae": "aelab eval first --samples 20",
    "eval-gan": "aelab eval game",
    "eval-denoising": "aelab eval clean --set level=0.25",
    "eval-pretrained": "aelab eval labels",
    "sample": "aelab sample first",
    "interpolate": "aelab interpolate first",
    "compare": "aelab compare first game three clean",
    "compare-two": "aelab compare first game --metric test/fd_lenet --metric test/kid_lenet",
    "compare-models": "aelab compare --table models",
    "runs": "aelab runs",
    "runs-show": "aelab runs show first",
    "runs-show-collapsed": f"aelab runs show {shlex.quote(LONG)}",
    "runs-register": "aelab runs register first digits-vae",
    "runs-export": "aelab runs export first exported",
    "runs-rm": "aelab runs rm burst",
    "runs-piped": "aelab runs | cat",
    "train-piped": "aelab train stacked --data digits --epochs 3 --name deep 2>&1 | cat",
    "recipes": "aelab recipes",
    "data": "aelab data",
    "sync": "aelab sync",
}


def printed(command: str, columns: int, folder: Path) -> str:
    """What a command leaves on a terminal of so many columns."""
    stop = command.endswith("^C")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "AELAB", "COLUMNS"))}
    environment |= {"TERM": "xterm", "XDG_CACHE_HOME": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command.removesuffix('^C')}" if "|" not in command else command],
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=folder, env=environment, start_new_session=True,
    )  # fmt: skip
    os.close(terminal)
    text, decoder = "", codecs.getincrementaldecoder("utf-8")()
    while True:
        try:
            data = os.read(controller, 1 << 16)
        except OSError:  # the end, on Linux
            break
        if not data:
            break
        text += decoder.decode(data)
        if stop and re.search(r"epoch 3\d/\d", text):
            os.killpg(process.pid, signal.SIGINT)
            stop = False
    process.wait()
    os.close(controller)
    return screen(text)


def screen(text: str) -> str:
    """What remains of a text with the sequences by which bars move: up a line, erase a line, back to its start."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[[\d;?]*[a-zA-Z]|[\r\n]|[^\x1b\r\n]+", text):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\r":
            column = 0
        elif part[0] != "\x1b":
            lines[row] = lines[row][:column].ljust(column) + part + lines[row][column + len(part) :]
            column += len(part)
        elif part[-1] == "A":
            row -= int(part[2:-1] or 1)
        elif part[-1] == "K":
            lines[row] = ""
    return "\n".join(line.rstrip() for line in lines).rstrip("\n") + "\n"


def equal(text: str, folder: Path, ids: list[str]) -> str:
    """A text with ids, dates, speeds and folders that are the same each time."""
    for k, run in enumerate(ids):
        same = hashlib.sha256(str(k).encode()).hexdigest()[:32]
        for digits in (32, 8, 6):
            text = text.replace(run[:digits], same[:digits])
    text = text.replace(str(folder), "/home/me/lab").replace(str(HERE.parents[1]), "/home/me/aelab")
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d", "2026-01-01 12:00", text)
    return re.sub(r"[\d,]+ images/s", "9,999 images/s", text)


def outputs(columns: int) -> dict[str, str]:
    """Names of files and their contents."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        found = {scene: printed(command, columns, folder) for scene, command in SCENES.items()}
        listed = subprocess.run(
            [Path(sys.executable).parent / "aelab", "runs", "--json"], cwd=folder, capture_output=True, check=True
        )
        ids = [run["id"] for run in json.loads(listed.stdout)["runs"]][::-1]
        return {
            f"{scene}.out.txt": f"$ {SCENES[scene].replace('  ^C', '')}\n{equal(text, folder, ids)}"
            for scene, text in found.items()
        }


def main() -> None:
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background ignores it, and children would inherit that
    with ThreadPoolExecutor() as pool:
        for columns, texts in zip(WIDTHS, pool.map(outputs, WIDTHS), strict=True):
            folder = HERE / str(columns)
            folder.mkdir(exist_ok=True)
            for old in folder.glob("*.out.txt"):
                old.unlink()
            for name, text in texts.items():
                (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
