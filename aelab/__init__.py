"""aelab: train, evaluate, sample and compare the autoencoders and generative models of a lecture.

    import aelab
    run = aelab.train("vae", latent_dim=10, epochs=5)
    run = aelab.load("vae")
    x = run.sample(64, seed=0)  # (64, C, H, W)
    run.evaluate()  # the metrics, a pandas Series

These functions do all that the command line does; `help(aelab.train)` says how. Importing aelab is fast: each name is
loaded when it is first used.
"""

import importlib
import os

TYPE_CHECKING = (
    False  # without `typing`: under `python -m aelab` the working folder could still put its own in place of it
)
if TYPE_CHECKING:
    from aelab import figures as figures
    from aelab.data import open_data as open_data
    from aelab.errors import UserError as UserError
    from aelab.lecture import make_lecture as make_lecture
    from aelab.recipe import Phase as Phase
    from aelab.recipe import Recipe as Recipe
    from aelab.recipe import descend as descend
    from aelab.training import Settings as Settings
    from aelab.training import Trainer as Trainer
    from aelab.workflows import Run as Run
    from aelab.workflows import Sweep as Sweep
    from aelab.workflows import compare as compare
    from aelab.workflows import compare_latent as compare_latent
    from aelab.workflows import evaluate as evaluate
    from aelab.workflows import export as export
    from aelab.workflows import interpolate as interpolate
    from aelab.workflows import load as load
    from aelab.workflows import reconstruct as reconstruct
    from aelab.workflows import resume as resume
    from aelab.workflows import runs as runs
    from aelab.workflows import sample as sample
    from aelab.workflows import show as show
    from aelab.workflows import sweep as sweep
    from aelab.workflows import train as train
    from aelab.workflows import train_like as train_like

    __version__: str

# OpenMP reads this when torch is imported. By default its threads spin for milliseconds before they sleep, which slows small
# steps many times over when another process needs the same core. A spin this short costs nothing on an idle machine.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")

_ROOMS = {
    "aelab.data": ["open_data"],
    "aelab.errors": ["UserError"],
    "aelab.lecture": ["make_lecture"],
    "aelab.recipe": ["Phase", "Recipe", "descend"],
    "aelab.training": ["Settings", "Trainer"],
    "aelab.workflows": [
        "Run",
        "Sweep",
        "compare",
        "compare_latent",
        "evaluate",
        "export",
        "interpolate",
        "load",
        "reconstruct",
        "resume",
        "runs",
        "sample",
        "show",
        "sweep",
        "train",
        "train_like",
    ],
}
__all__ = [name for names in _ROOMS.values() for name in names]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("aelab")
    if name == "figures":
        return importlib.import_module("aelab.figures")
    for room, names in _ROOMS.items():
        if name in names:
            return getattr(importlib.import_module(room), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__, "__version__"]
