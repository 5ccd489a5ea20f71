"""What one run costs a group's server: python benchmarks/run_cost.py [RECIPE] [OPTION...]

Starts PostgreSQL, MLflow's server on it with proxied artifacts, and between both and the run a proxy that counts. Trains the
run twice, with few and with more epochs, and prints what each asked of the server: requests by their path, bytes, rows of the
database, files, and CPU seconds of server and database. Then some processes log batches for some seconds, against servers with
one worker and with four. Needs PostgreSQL.
"""

import contextlib
import http.client
import multiprocessing
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "faults")]

import group  # noqa: E402

TABLES = ("runs", "params", "tags", "metrics", "latest_metrics", "datasets", "inputs", "input_tags")
TABLES += ("logged_models", "logged_model_metrics", "logged_model_params", "logged_model_tags")
EPOCHS = (5, 100)
AELAB = "import sys; from aelab.cli import main; sys.argv[0] = 'aelab'; main()"
SECONDS, CLIENTS, POINTS = 15, 8, 100  # of the load test; points in a batch


class Counting(BaseHTTPRequestHandler):
    """Hands every request on to the server, and counts it."""

    protocol_version = "HTTP/1.1"
    port = 0
    requests: ClassVar[Counter[str]] = Counter()
    bytes: ClassVar[Counter[str]] = Counter()

    def hop(self) -> None:
        """One request and its answer."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("connection", "host")}
        server.request(self.command, self.path, body, headers)
        answer = server.getresponse()
        content = answer.read()
        path = re.sub(
            r"^/api/2\.0/(mlflow-artifacts)?.*?(artifacts/|mlflow/)", r"\1 ", self.path.partition("?")[0]
        ).strip()
        kind = f"{self.command} {'artifact' if 'mlflow-artifacts' in self.path else path}"
        self.requests[kind] += 1
        self.bytes["sent"] += len(body)
        self.bytes["received"] += len(content)
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.getheader("Content-Type") or "text/plain")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = hop  # noqa: N815  # what http.server calls

    def log_message(self, *_: Any) -> None:
        """Says nothing."""


def cpu(root: int) -> float:
    """CPU seconds of a process and all that it started, also of those that have ended."""
    parents, ticks = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            parents[int(path.parent.name)] = int(fields[1])
            ticks[int(path.parent.name)] = sum(map(int, fields[11:15]))
    family = {root}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sum(ticks.get(each, 0) for each in family) / os.sysconf("SC_CLK_TCK")


def state(database: group.Database, server: group.GroupServer) -> dict[str, float]:
    """What the database and the artifacts hold, and what the processes have used."""
    found: dict[str, float] = {
        f"rows of {table}": database.sql(f"SELECT count(*) FROM {table}")[0][0] for table in TABLES
    }
    found["bytes of the database"] = database.sql(
        "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r'"
    )[0][0]
    files = [path for path in server.kept.rglob("*") if path.is_file()]
    found |= {"artifact files": len(files), "artifact bytes": sum(path.stat().st_size for path in files)}
    found["CPU seconds of the server"] = cpu(server.process.pid)
    found["CPU seconds of PostgreSQL"] = cpu(int((database.data / "postmaster.pid").read_text().split()[0]))
    return found


def log(url: str, run_id: str, ready: Any, sent: Any) -> None:
    """Logs batches of points for SECONDS, as a run does, once all clients are ready."""
    from mlflow.entities import Metric

    from aelab.tracking import Store

    store, count, slowest = Store(url), 0, 0.0
    ready.wait()
    until = time.time() + SECONDS
    while (begun := time.time()) < until:
        batch = [Metric(f"step/m{k % 5}", k / 3, int(begun * 1000), count * POINTS + k) for k in range(POINTS)]
        store.client.log_batch(run_id, metrics=batch)
        count, slowest = count + 1, max(slowest, time.time() - begun)
    sent.put((count, slowest))


def load(database: group.Database, folder: str, workers: int) -> None:
    """Prints how many batches of points a server takes from several clients at once, and what they cost."""
    from aelab.tracking import Store

    server = group.GroupServer(f"{database.server}/tracking", folder, workers).start()
    try:
        store = Store(server.url)
        ids = [store.client.create_run(store.experiment("load")).info.run_id for _ in range(CLIENTS)]
        alone = []
        for _ in range(50):
            begun = time.perf_counter()
            store.client.get_run(ids[0])
            alone.append(time.perf_counter() - begun)
        spawn = multiprocessing.get_context("spawn")
        ready, sent = spawn.Barrier(CLIENTS + 1), spawn.Queue()
        clients = [spawn.Process(target=log, args=(server.url, run_id, ready, sent)) for run_id in ids]
        for client in clients:
            client.start()
        ready.wait()
        before = state(database, server)
        counts = [sent.get() for _ in clients]
        after = state(database, server)
        for client in clients:
            client.join()
        total = sum(count for count, _ in counts)
        used = {key: after[key] - before[key] for key in after}
        print(
            f"{workers} worker{'s' * (workers > 1)}: {1000 * statistics.median(alone):.0f} ms a request of one client alone"
        )
        print(
            f"{workers} worker{'s' * (workers > 1)}: {total} batches of {POINTS} points from {CLIENTS} clients in {SECONDS} s; "
            f"for each {1000 * used['CPU seconds of the server'] / total:.1f} ms of the server's CPU, "
            f"{1000 * used['CPU seconds of PostgreSQL'] / total:.1f} ms of PostgreSQL's, "
            f"{used['bytes of the database'] / total / POINTS:.0f} bytes a point; the slowest {max(s for _, s in counts):.2f} s",
            flush=True,
        )
    finally:
        server.kill()


def count(database: group.Database, folder: str, words: list[str]) -> None:
    """Trains the runs and prints the table."""
    server = group.GroupServer(f"{database.server}/tracking", folder).start()
    Counting.port = server.port
    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Counting)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    environment = {**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{proxy.server_port}"}
    columns = []
    try:
        for epochs in (1, *EPOCHS):  # the first creates the experiment
            Counting.requests.clear()
            Counting.bytes.clear()
            before = state(database, server)
            subprocess.run(
                [sys.executable, "-c", AELAB, "train", *words, "--epochs", str(epochs), "-q"],
                env=environment, check=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
            after = state(database, server)
            column: dict[str, float] = {"requests": sum(Counting.requests.values())}
            column |= {f"  {kind}": number for kind, number in Counting.requests.most_common()}
            column |= {f"bytes {way}": number for way, number in Counting.bytes.items()}
            columns.append(column | {key: value - before[key] for key, value in after.items()})
    finally:
        proxy.shutdown()
        server.kill()
    print(" ".join(words) + "".join(f"{f'{epochs} epochs':>14}" for epochs in EPOCHS))
    for key in dict.fromkeys(key for column in columns[1:] for key in column):
        values = [column.get(key, 0) for column in columns[1:]]
        print(f"{key:44}" + "".join(f"{v:14.2f}" if isinstance(v, float) else f"{v:14,}" for v in values))


def main() -> None:
    """Counts what runs ask, and loads the server."""
    words = sys.argv[1:] or ["vae", "--data", "digits"]
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "PGPASSWORD": group.SECRET}
        database = group.Database()
        try:
            count(database, folder, words)
            for workers in (1, 4):
                load(database, folder, workers)
        finally:
            database.remove()


if __name__ == "__main__":
    main()
