"""The door to MLflow, and the only one: `store` finds and starts runs, `run` writes one, `server` shows them."""

import logging
import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its default blocks for four minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")  # an hour, if a server says so

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

for _name in ("mlflow", "alembic"):  # what they raise is said in our own words, once
    logging.getLogger(_name).setLevel(logging.CRITICAL)
