"""All access to MLflow: `Store` finds and starts runs, `RunWriter` writes one, `served` runs MLflow's web pages."""

from aelab.tracking import start_up  # noqa: F401  # first: how MLflow is imported
from aelab.tracking.info import RunInfo, cache_folder
from aelab.tracking.models import Signature, invalid_input
from aelab.tracking.opening import NoStoreError
from aelab.tracking.owner import PROCESS_DIED, HeldError, slurm_job
from aelab.tracking.server import served
from aelab.tracking.store import Store
from aelab.tracking.sync import push, replay
from aelab.tracking.trouble import valid_metric_name
from aelab.tracking.writer import RunWriter, Status

__all__ = [
    "PROCESS_DIED",
    "HeldError",
    "NoStoreError",
    "RunInfo",
    "RunWriter",
    "Signature",
    "Status",
    "Store",
    "cache_folder",
    "invalid_input",
    "push",
    "replay",
    "served",
    "slurm_job",
    "valid_metric_name",
]
