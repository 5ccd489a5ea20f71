"""Where the program starts: Ctrl-C must end it in one line also while it is still being imported."""

import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    del sys.path[0]  # the working folder: `python -m aelab` imports no module from it, as the command `aelab` does not

import os
import signal
from types import FrameType
from typing import NoReturn


def main() -> NoReturn:
    """The command line."""
    os.environ["PYTHONSAFEPATH"] = "1"  # the processes of a sweep import nothing from the working folder either
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, as in a shell's background
        signal.signal(signal.SIGINT, _interrupted)
    from aelab.cli import main

    main()


def _interrupted(number: int, frame: FrameType | None) -> None:
    """Raises KeyboardInterrupt, but not out of an import: there torch's C++ would abort on it. Nothing is open yet then."""
    while frame:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, b"error: interrupted.\n")
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
