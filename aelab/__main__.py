"""The entry point of the program. Ctrl-C ends it with one line, even while modules are still being imported."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working folder: like the command `aelab`, `python -m aelab` imports no module from it

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """Runs the command line."""
    os.environ["PYTHONSAFEPATH"] = "1"  # the processes of a sweep import nothing from the working folder either
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background job ignores SIGINT
        signal.signal(signal.SIGINT, _interrupted)
    from aelab.cli import main

    main()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt. During an import it exits instead: torch's C++ code would abort, and nothing is open yet."""
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, b"Interrupted.\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
