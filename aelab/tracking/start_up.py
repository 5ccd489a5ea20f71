"""How MLflow is imported: its settings first, and without garbage collection.

MLflow makes some 600,000 objects when it is imported, and all of them live as long as the process. The collector would go
through them again and again, which takes longer than the import itself.
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
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # its default blocks for four minutes
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
os.environ.setdefault("MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER", "false")  # an hour, if a server says so


@contextmanager
def no_collection() -> Iterator[None]:
    """Switches the garbage collector off for the imports in the block, and moves what they made to its oldest generation."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.unfreeze()  # the two together move everything there without going through it
        if enabled:
            gc.enable()


with no_collection():
    import mlflow.tracking  # noqa: F401


def _skip_last_collection() -> None:
    """Keeps the collection at Python's end from going through all of it once more, which takes half a second.

    Not if torch was imported: bindings to C++ that come with it print a warning about each object that was not collected.
    """
    if "torch" not in sys.modules:
        gc.freeze()


atexit.register(_skip_last_collection)

for _name in ("mlflow", "alembic"):  # their errors are reported once, in our words
    logging.getLogger(_name).setLevel(logging.CRITICAL)
