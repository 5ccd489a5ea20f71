"""What checkpoints and tracking cost: python benchmarks/overhead.py [RECIPE] [OPTION...]

Trains one run in an empty folder. Prints, as a share of the training's time, what its thread spent writing checkpoints and
handing metrics and pictures to the tracking, and the CPU time of the thread that sends them.
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from aelab.cli import main
from aelab.tracking import RunWriter
from aelab.tracking.sender import Sender
from aelab.training import Checkpoints
from aelab.workflows import following

SPENT: defaultdict[str, float] = defaultdict(float)


def timed(owner: Any, name: str, label: str, clock: Callable[[], float] = time.perf_counter) -> None:
    """Adds up what the calls of a function take, by this clock, in the thread that calls it."""
    inner = getattr(owner, name)

    def outer(*arguments: Any, **options: Any) -> Any:
        begun = clock()
        try:
            return inner(*arguments, **options)
        finally:
            SPENT[label] += clock() - begun

    setattr(owner, name, outer)


def run() -> None:
    """Trains with these functions timed, and prints what they took."""
    words = sys.argv[1:] or ["vae", "--data", "mnist", "--epochs", "3"]
    timed(following, "follow", "training")
    timed(Checkpoints, "save", "checkpoints")
    timed(RunWriter, "metrics", "handing over metrics")
    timed(RunWriter, "stepwise_image", "handing over pictures")
    timed(Sender, "_work", "sending (CPU of its thread)", time.thread_time)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = ["aelab", "train", *words, "--quiet"]
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise
        finally:
            os.chdir("/")
    total = SPENT.pop("training")
    print(f"training  {total:.1f} s")
    for label, seconds in SPENT.items():
        print(f"{label:28} {seconds:7.3f} s  {100 * seconds / total:5.2f} %")
    cost = sum(SPENT.values())
    print(f"{'checkpoints and tracking':28} {cost:7.3f} s  {100 * cost / total:5.2f} %")


if __name__ == "__main__":
    run()
