"""How good a model is: its metrics on held-out images, beside baselines and controls, and the diagnostics that follow."""

from aelab.evaluation.diagnostics import Diagnosis, diagnose, diagnose_test
from aelab.evaluation.generation import Extractor, inception
from aelab.evaluation.loss import active_units, eval_mode, evaluate_loss, reconstruct
from aelab.evaluation.measure import measure
from aelab.evaluation.reconstruction import fit_pca
from aelab.evaluation.report import Report
from aelab.evaluation.samples import sampling_seconds, verdicts

__all__ = [
    "Diagnosis",
    "Extractor",
    "Report",
    "active_units",
    "diagnose",
    "diagnose_test",
    "eval_mode",
    "evaluate_loss",
    "fit_pca",
    "inception",
    "measure",
    "reconstruct",
    "sampling_seconds",
    "verdicts",
]
