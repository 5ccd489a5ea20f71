"""The door to MLflow, and the only one: `store` finds and starts runs, `run` writes one, `server` shows them."""

from aelab.tracking import start_up  # noqa: F401  # first: how MLflow is imported
from aelab.tracking.info import RunInfo, cache_folder
from aelab.tracking.opening import NoStoreError
from aelab.tracking.owner import WITHOUT_A_WORD
from aelab.tracking.server import served
from aelab.tracking.store import Store
from aelab.tracking.sync import push, replay
from aelab.tracking.trouble import named_well
from aelab.tracking.writer import RunWriter, Status

__all__ = [
    "WITHOUT_A_WORD",
    "NoStoreError",
    "RunInfo",
    "RunWriter",
    "Status",
    "Store",
    "cache_folder",
    "named_well",
    "push",
    "replay",
    "served",
]
