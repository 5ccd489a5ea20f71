"""MLflow's web server for one store, on this machine."""

import itertools
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aelab.errors import UserError
from aelab.tracking import serving
from aelab.tracking.store import Store


@contextmanager
def served(store: Store, port: int) -> "Iterator[subprocess.Popen[bytes]]":
    """Runs MLflow's web server for a store, reachable from this machine only, until the block or this process ends.

    The server answers when the block begins. It has one worker, which starts three times as fast as MLflow's default of four.
    Raises UserError if the port is taken or the server does not start.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UserError(f"port {port} is taken: {error.strerror}.", f"Type: aelab ui --port {port + 1}") from error
    server = subprocess.Popen(
        _command(port),
        env=_environment(store),
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for _ in range(240):
            if server.poll() is not None:
                raise UserError(f"MLflow's server ended with exit code {server.returncode}.", "Try: mlflow ui")
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                time.sleep(0.25)
        else:
            raise UserError("MLflow's server does not answer.", "Try: mlflow ui")
        yield server
    finally:
        assert server.stdin
        server.stdin.close()  # tells it to end
        server.wait()
        with suppress(ProcessLookupError):  # if the server was killed, its child processes remain
            os.killpg(server.pid, signal.SIGKILL)


def _command(port: int) -> list[str]:
    """The server's command line. It imports nothing from the working folder, and accepts only this machine's host names.

    By default MLflow accepts every Host header that begins like a private address, such as 10.0.0.1.example.com, a name that
    anyone can let point to this machine.
    """
    hosts = ",".join(f"{name}{suffix}" for name in ("127.0.0.1", "localhost") for suffix in (f":{port}", ""))
    standard_library = Path(os.__file__).parent  # by default uvicorn puts the working folder first in sys.path
    options = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--allowed-hosts": hosts,
        "--uvicorn-opts": f"--app-dir {shlex.quote(str(standard_library))}",
    }
    return [sys.executable, "-P", serving.__file__, "server", *itertools.chain(*options.items())]


def _environment(store: Store) -> dict[str, str]:
    root = store.database.parent if store.database else Path.cwd()
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store.uri,  # not an argument, as every user of the machine can read those
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": (root.resolve() / "mlruns").as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONSAFEPATH": "1",  # for the child process of the server
    }
    for name in ("TRACKING_URI", "SERVER_CORS_ALLOWED_ORIGINS", "SERVER_DISABLE_SECURITY_MIDDLEWARE"):
        environment.pop(f"MLFLOW_{name}", None)
    return environment
