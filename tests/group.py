"""A group's server on this machine: a real PostgreSQL, and MLflow's server on it that keeps the artifacts itself."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from machinery import free_port

FOLDERS = ["/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql"]  # Debian's, with the version below
SECRET = "correct-horse-battery"  # the passwords of a test, which must turn up nowhere


def programs():
    """The folder with PostgreSQL's programs; None where they are missing."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = [path.parent for root in FOLDERS for path in Path(root).glob("**/bin/initdb")]
    return max(folders, key=lambda folder: [int(part) for part in folder.parts if part.isdigit()], default=None)


class Database:
    """A new PostgreSQL in a temporary folder, by a user that is not root, which PostgreSQL refuses."""

    def __init__(self):
        self.root = Path(tempfile.mkdtemp(prefix="aelab-postgres-"))
        self.port, self.data = free_port(), self.root / "data"
        self.who = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
        if self.who:
            shutil.chown(self.root, "postgres", "postgres")
        (self.root / "password").write_text(SECRET)
        self._do("initdb", "-D", self.data, "-U", "aelab", "-A", "scram-sha-256", "--pwfile", self.root / "password",
                 "-E", "UTF8", "--locale", "C", "--no-sync")  # fmt: skip
        self.start()
        self.new("tracking")

    @property
    def server(self):
        """The address of the server, without a password: libpq's PGPASSWORD has that."""
        return f"postgresql://aelab@127.0.0.1:{self.port}"

    def _do(self, name, *words):
        subprocess.run([str(programs() / name), *map(str, words)], check=True, cwd=self.root, capture_output=True,
                       text=True, **self.who)  # fmt: skip

    def start(self):
        how = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.root} -c max_connections=200"
        self._do("pg_ctl", "-D", self.data, "-l", self.root / "log", "-o", how, "-w", "start")

    def stop(self, mode="fast"):
        """`immediate` is a crash: what was not committed is gone, and the start reads the log of what was."""
        self._do("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def remove(self):
        self.stop("immediate")
        shutil.rmtree(self.root)

    def new(self, name):
        """A new database; returns its address."""
        self.sql(f'CREATE DATABASE "{name}"', "postgres")
        return f"{self.server}/{name}"

    def sql(self, text, database="tracking", values=None):
        """The rows of a query."""
        import psycopg

        with psycopg.connect(f"{self.server}/{database}", password=SECRET, autocommit=True) as connection:
            cursor = connection.execute(text, values)
            return cursor.fetchall() if cursor.description else []

    def log(self):
        return (self.root / "log").read_text()


class GroupServer:
    """MLflow's server on a database, with proxied artifacts, as compose.yaml starts it; to be killed and started again."""

    def __init__(self, address, root, workers=1):
        self.address, self.root, self.workers = address, Path(root), workers
        self.port, self.process = free_port(), None
        self.url, self.kept, self.output = f"http://127.0.0.1:{self.port}", self.root / "kept", self.root / "server.log"

    def start(self):
        words = [
            "server",
            "--backend-store-uri",
            self.address,
            "--serve-artifacts",
            "--artifacts-destination",
            self.kept,
        ]
        words += ["--host", "127.0.0.1", "--port", self.port, "--workers", self.workers]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        environment["PGPASSWORD"] = SECRET
        environment.pop("MLFLOW_TRACKING_URI", None)
        with self.output.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", *map(str, words)], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                env=environment, cwd=self.root, start_new_session=True,
            )  # fmt: skip
        end = time.monotonic() + 180
        while not self.answers():
            assert self.process.poll() is None and time.monotonic() < end, self.output.read_text()[-2000:]
            time.sleep(0.1)
        return self

    def answers(self):
        try:
            with urllib.request.urlopen(self.url + "/health", timeout=2):
                return True
        except OSError:
            return False

    def kill(self):
        """The server and its workers, with no time to finish a request."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
