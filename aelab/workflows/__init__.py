"""The workflows: plan, train, resume, load, evaluate, draw, sweep, list, compare and export runs.

Each module is imported when it is first used, so that listing runs does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aelab.workflows.comparing import draw_curve as draw_curve
    from aelab.workflows.comparing import draw_sheets as draw_sheets
    from aelab.workflows.drawing import Drawing as Drawing
    from aelab.workflows.drawing import interpolate as interpolate
    from aelab.workflows.drawing import reconstruct as reconstruct
    from aelab.workflows.drawing import sample as sample
    from aelab.workflows.evaluating import Evaluation as Evaluation
    from aelab.workflows.evaluating import evaluate as evaluate
    from aelab.workflows.exporting import export as export
    from aelab.workflows.listing import Comparison as Comparison
    from aelab.workflows.listing import choose as choose
    from aelab.workflows.listing import compare as compare
    from aelab.workflows.listing import compared as compared
    from aelab.workflows.listing import listed as listed
    from aelab.workflows.listing import runs as runs
    from aelab.workflows.loading import configuration as configuration
    from aelab.workflows.loading import load as load
    from aelab.workflows.loading import open_run as open_run
    from aelab.workflows.planning import Config as Config
    from aelab.workflows.planning import Plan as Plan
    from aelab.workflows.planning import plan as plan
    from aelab.workflows.registering import register as register
    from aelab.workflows.resuming import resume as resume
    from aelab.workflows.run import Run as Run
    from aelab.workflows.showing import show as show
    from aelab.workflows.signals import Stopped as Stopped
    from aelab.workflows.starting import train as train
    from aelab.workflows.sweeping import Sweep as Sweep
    from aelab.workflows.sweeping import sweep as sweep

_MODULES = {
    "Comparison": "listing",
    "Config": "planning",
    "Drawing": "drawing",
    "Evaluation": "evaluating",
    "Plan": "planning",
    "Run": "run",
    "Stopped": "signals",
    "Sweep": "sweeping",
    "choose": "listing",
    "compare": "listing",
    "compared": "listing",
    "configuration": "loading",
    "draw_curve": "comparing",
    "draw_sheets": "comparing",
    "evaluate": "evaluating",
    "export": "exporting",
    "interpolate": "drawing",
    "listed": "listing",
    "load": "loading",
    "open_run": "loading",
    "plan": "planning",
    "reconstruct": "drawing",
    "register": "registering",
    "resume": "resuming",
    "runs": "listing",
    "sample": "drawing",
    "show": "showing",
    "sweep": "sweeping",
    "train": "starting",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
