"""What checkpointing and tracking cost: python benchmarks/overhead.py [RECIPE] [OPTION...]

Trains one run in an empty folder and prints, as a share of the training's time, what its thread spent in writing checkpoints
and in passing metrics and pictures to the tracking, and the CPU time of the thread that sends them.
"""

import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from aelab.cli import main
from aelab.tracking import Run
from aelab.training.trainer import Training

SPENT: defaultdict[str, float] = defaultdict(float)


def timed(owner: type, name: str, label: str) -> None:
    """Adds up what the calls of a method take in the training's own thread."""
    inner = getattr(owner, name)

    def outer(*arguments: Any, **options: Any) -> Any:
        begun = time.perf_counter()
        try:
            return inner(*arguments, **options)
        finally:
            SPENT[label] += time.perf_counter() - begun

    setattr(owner, name, outer)


def sender(work: Callable[[Run], None]) -> Callable[[Run], None]:
    """The tracking thread, its CPU time read at its end."""

    def outer(run: Run) -> None:
        work(run)
        SPENT["sending (CPU of its thread)"] += time.thread_time()

    return outer


def run() -> None:
    words = sys.argv[1:] or ["vae", "--data", "mnist", "--epochs", "3"]
    timed(Training, "save", "checkpoints")
    timed(Run, "metrics", "passing on metrics")
    timed(Run, "stepwise_image", "handing over pictures")
    timed(Training, "fit", "training")
    Run._work = sender(Run._work)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        sys.argv = ["aelab", "train", *words, "-q"]
        try:
            main()
        except SystemExit as ended:
            if ended.code:
                raise
        os.chdir("/")
    total = SPENT.pop("training")
    print(f"training  {total:.1f} s")
    for label, seconds in SPENT.items():
        print(f"{label:28} {seconds:7.3f} s  {100 * seconds / total:5.2f} %")
    cost = sum(SPENT.values())
    print(f"{'checkpoints and tracking':28} {cost:7.3f} s  {100 * cost / total:5.2f} %")


run()
