"""Runs MLflow's server and ends it, and all that it started, when standard input is closed.

The process that starts this holds the other end of a pipe, and the kernel closes it however that process ends, SIGKILL
included. It runs as a script, in a session of its own, and imports nothing from aelab.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_SECONDS = 3.0  # for requests that are being answered


def end_with_input() -> None:
    """Waits for the end of standard input, then ends every process of this group."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    threading.Thread(target=end_with_input, daemon=True).start()
    runpy.run_module("mlflow", run_name="__main__", alter_sys=True)
