"""Imports MLflow, after its settings are set, and with the garbage collector off.

The import creates about 600,000 objects that live as long as the process. The collector would traverse them repeatedly,
which takes longer than the import itself.
"""

import atexit
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it is printed past every --quiet
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the default blocks for four minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")  # a server may ask for an hour


@contextmanager
def no_collection() -> Iterator[None]:
    """Turns the garbage collector off for the imports in the block, and moves the new objects to its oldest generation."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # both together move all objects there without traversing them
        if enabled:
            gc.enable()


with no_collection():
    import mlflow.tracking  # noqa: F401


def _skip_last_collection() -> None:
    """Avoids the collection at the end of the process, which takes half a second.

    Not if torch was imported: its C++ bindings print a warning about each object that was not collected.
    """
    if "torch" not in sys.modules:
        gc.freeze()


atexit.register(_skip_last_collection)

for _name in ("mlflow", "alembic"):  # aelab reports their errors itself
    logging.getLogger(_name).setLevel(logging.CRITICAL)
