"""MLflow's web pages, served for one store on this machine."""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from aelab.problem import Problem
from aelab.tracking.store import Store


@contextmanager
def served(store: Store, port: int) -> "Iterator[subprocess.Popen[bytes]]":
    """MLflow's web server for a store, on this machine alone, ready to answer; it ends with the block.

    One worker starts three times as fast as MLflow's four. Raises Problem if the port is taken or it does not come up.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise Problem(f"port {port} is taken: {error.strerror}.", f"Type: aelab ui --port {port + 1}") from error
    root = store.database.parent if store.database else Path.cwd()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store.uri,  # not among the arguments, which every user of the machine can read
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (root.resolve() / "mlruns").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    environment.pop("MLFLOW_TRACKING_URI", None)
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise Problem(f"MLflow's server ended with exit code {server.returncode}.", "Try: mlflow ui")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.25)
        yield server
    finally:
        server.terminate()
        server.wait()
