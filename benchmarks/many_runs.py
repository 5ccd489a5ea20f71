"""What the verbs take in a full store: python benchmarks/many_runs.py [RUNS]

Fills a SQLite database, a PostgreSQL database and one behind MLflow's server with copies of a run (10,000 if not said), and
prints the seconds of a whole command, with the CPU seconds of its process in brackets, and as a multiple of the same command
in a store of 10 runs. PostgreSQL is left out where it is not installed.
"""

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import sqlalchemy

import aelab

TESTS = Path(__file__).parent.parent / "tests"
COMMANDS = {  # {name}, {id}: of a run in the middle
    "aelab runs": ["runs"],
    "  --filter ...": ["runs", "--filter", "params.latent_dim = '7'"],
    "  --all --json": ["runs", "--all", "--json"],
    "aelab runs show NAME": ["runs", "show", "{name}"],
    "aelab runs show ID": ["runs", "show", "{id}"],
}
AELAB = "import sys; from aelab.cli import main; sys.argv[0] = 'aelab'; main()"
TABLES = ("runs", "tags", "params", "latest_metrics")
REPEATS = 2  # the fastest counts: other work on the machine only adds


def fill(address: str, count: int) -> tuple[str, str]:
    """Trains a small run and copies its rows: a tenth in a sweep, the newest five running. Returns a name and an id."""
    run = aelab.train("vae", data="digits", epochs=2, name="model", tracking_uri=address)
    engine = sqlalchemy.create_engine(address)
    copies = [
        {"id": uuid.uuid4().hex, "name": f"vae-{k:06d}", "k": k, "child": k % 10 == 7, "alive": k < 5}
        for k in range(count)
    ]
    with engine.begin() as connection:

        def do(text: str, values: object = None) -> None:
            connection.execute(sqlalchemy.text(text), values)

        do(
            "CREATE TABLE copies (id VARCHAR(32) PRIMARY KEY, name VARCHAR(40), k INTEGER, child BOOLEAN, alive BOOLEAN)"
        )
        do("INSERT INTO copies VALUES (:id, :name, :k, :child, :alive)", copies)
        changed = {
            "run_uuid": "c.id",
            "name": "c.name",
            "start_time": "r.start_time - 60000 * c.k",
            "status": "CASE WHEN c.alive THEN 'RUNNING' ELSE r.status END",
            "artifact_uri": f"replace(r.artifact_uri, '{run.id}', c.id)",
        }
        for table in TABLES:
            names = [each["name"] for each in sqlalchemy.inspect(connection).get_columns(table)]
            own = changed if table == "runs" else {"run_uuid": "c.id"}
            quoted = ", ".join(f'"{name}"' for name in names)
            values = ", ".join(own.get(name, f'r."{name}"') for name in names)
            do(f"INSERT INTO {table} ({quoted}) SELECT {values} FROM {table} r, copies c WHERE r.run_uuid = '{run.id}'")
        do(
            "UPDATE tags SET value = 'elsewhere 1 1' WHERE key = 'aelab.process' AND run_uuid IN (SELECT id FROM copies)"
        )
        named = "SELECT name FROM copies WHERE id = run_uuid"
        do(f"UPDATE tags SET value = ({named}) WHERE key = 'mlflow.runName' AND run_uuid IN (SELECT id FROM copies)")
        parent = f"SELECT 'mlflow.parentRunId', '{copies[4]['id']}', id FROM copies WHERE child"
        do(f"INSERT INTO tags (key, value, run_uuid) {parent}")
        do("DROP TABLE copies")
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(sqlalchemy.text("VACUUM ANALYZE"))
    engine.dispose()
    middle = copies[count // 2]
    return str(middle["name"]), str(middle["id"])


def took(address: str, words: list[str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command, the fastest of some."""
    best = (1e9, 1e9)
    for _ in range(REPEATS):
        before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        ended = subprocess.run(
            [sys.executable, "-c", AELAB, *words],
            env={**os.environ, "MLFLOW_TRACKING_URI": address}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
        assert ended.returncode == 0, ended.stderr
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        best = min(best[0], wall), min(best[1], cpu)
    return best


def measure(label: str, ask_at: list[str], runs: list[tuple[str, str]]) -> None:
    """Prints the table of one kind of store; the first address is that of the store with few runs."""
    print(f"\n{label}", flush=True)
    for title, words in COMMANDS.items():
        few, many = (
            took(address, [word.format(name=name, id=run_id[:12]) for word in words])
            for address, (name, run_id) in zip(ask_at, runs, strict=True)
        )
        print(f"{title:26} {many[0]:6.2f} s ({many[1]:.2f})   {many[1] / few[1]:5.1f} x", flush=True)


def main() -> None:
    """Measures each kind of store in turn."""
    sizes = 10, int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    print(f"{sizes[1]} runs; seconds (CPU seconds of aelab), CPU as a multiple of that with 10 runs")
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ["XDG_CACHE_HOME"] = f"{folder}/cache"
        addresses = [f"sqlite:///{folder}/{name}.db" for name in ("few", "many")]
        measure("SQLite", addresses, [fill(*each) for each in zip(addresses, sizes, strict=True)])
        sys.path[:0] = [str(TESTS), str(TESTS / "faults")]
        import group

        if not group.programs():
            print("\nPostgreSQL is not installed")
            return
        database = group.Database()
        os.environ["PGPASSWORD"] = group.SECRET
        servers = []
        try:
            addresses = [database.new(name) for name in ("few", "many")]
            servers = [group.GroupServer(each, folder).start() for each in addresses]  # they make the tables
            runs = [fill(*each) for each in zip(addresses, sizes, strict=True)]
            measure("PostgreSQL", addresses, runs)
            measure("MLflow's server on PostgreSQL", [each.url for each in servers], runs)
        finally:
            for server in servers:
                server.kill()
            database.remove()


if __name__ == "__main__":
    main()
