"""The workflows: plan, train, resume, load, evaluate, draw, sweep, list, compare and export runs.

Each module is imported when it is first used, so that listing runs does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aelab.workflows.comparing import best_of as best_of
    from aelab.workflows.comparing import draw_curve as draw_curve
    from aelab.workflows.comparing import draw_sheets as draw_sheets
    from aelab.workflows.comparing import draw_sweep as draw_sweep
    from aelab.workflows.drawing import Drawing as Drawing
    from aelab.workflows.drawing import interpolate as interpolate
    from aelab.workflows.drawing import reconstruct as reconstruct
    from aelab.workflows.drawing import sample as sample
    from aelab.workflows.evaluating import Evaluation as Evaluation
    from aelab.workflows.evaluating import evaluate as evaluate
    from aelab.workflows.evaluating import faults as faults
    from aelab.workflows.exporting import export as export
    from aelab.workflows.latent import LatentComparison as LatentComparison
    from aelab.workflows.latent import compare_latent as compare_latent
    from aelab.workflows.listing import Comparison as Comparison
    from aelab.workflows.listing import choose as choose
    from aelab.workflows.listing import compare as compare
    from aelab.workflows.listing import compared as compared
    from aelab.workflows.listing import listed as listed
    from aelab.workflows.listing import runs as runs
    from aelab.workflows.listing import sweep_named as sweep_named
    from aelab.workflows.listing import swept as swept
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
    from aelab.workflows.starting import train_like as train_like
    from aelab.workflows.sweeping import Planned as Planned
    from aelab.workflows.sweeping import Sweep as Sweep
    from aelab.workflows.sweeping import announced as announced
    from aelab.workflows.sweeping import plan_sweep as plan_sweep
    from aelab.workflows.sweeping import sweep as sweep

_MODULES = {
    "Comparison": "listing",
    "Config": "planning",
    "Drawing": "drawing",
    "Evaluation": "evaluating",
    "LatentComparison": "latent",
    "Plan": "planning",
    "Planned": "sweeping",
    "Run": "run",
    "Stopped": "signals",
    "Sweep": "sweeping",
    "announced": "sweeping",
    "best_of": "comparing",
    "choose": "listing",
    "compare": "listing",
    "compare_latent": "latent",
    "compared": "listing",
    "configuration": "loading",
    "draw_curve": "comparing",
    "draw_sheets": "comparing",
    "draw_sweep": "comparing",
    "evaluate": "evaluating",
    "faults": "evaluating",
    "export": "exporting",
    "interpolate": "drawing",
    "listed": "listing",
    "load": "loading",
    "open_run": "loading",
    "plan": "planning",
    "plan_sweep": "sweeping",
    "reconstruct": "drawing",
    "register": "registering",
    "resume": "resuming",
    "runs": "listing",
    "sample": "drawing",
    "show": "showing",
    "sweep": "sweeping",
    "sweep_named": "listing",
    "swept": "listing",
    "train": "starting",
    "train_like": "starting",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
