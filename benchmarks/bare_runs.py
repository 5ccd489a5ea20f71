"""What a listing asks of PostgreSQL in a very full store: python benchmarks/bare_runs.py [RUNS]

Writes runs with five tags each and nothing else (100,000 if not said), and prints the seconds of what the verbs ask, the
fastest of three times, without the start of a process. Needs PostgreSQL.
"""

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parent.parent / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "faults")]

import group  # noqa: E402

from aelab.tracking import Store  # noqa: E402

TAGS = {  # in SQL, of run k
    "aelab.recipe": "'vae'",
    "aelab.kind": "'run'",
    "aelab.process": "'host 1 1'",
    "aelab.identity": "md5('identity' || k)",
    "mlflow.runName": "'vae-' || k",
}
RUN = {
    "run_uuid": "md5(k::text)",
    "name": "'vae-' || k",
    "status": "'FINISHED'",
    "user_id": "'me'",
    "source_type": "'LOCAL'",
    "source_name": "'aelab'",
    "source_version": "''",
    "entry_point_name": "''",
    "start_time": "1700000000000 + 1000 * k",
    "end_time": "1700000000900 + 1000 * k",
    "lifecycle_stage": "'active'",
    "artifact_uri": "'mlflow-artifacts:/1/' || md5(k::text) || '/artifacts'",
}


def main() -> None:
    """Fills the database and asks."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        os.environ |= {"XDG_CACHE_HOME": f"{folder}/cache", "PGPASSWORD": group.SECRET}
        database = group.Database()
        try:
            server = group.GroupServer(f"{database.server}/tracking", folder).start()  # makes the tables
            experiment = Store(server.url).experiment(None)
            server.kill()
            series = f"FROM generate_series(1, {count}) k"
            columns = {**RUN, "experiment_id": experiment}
            database.sql(f"INSERT INTO runs ({', '.join(columns)}) SELECT {', '.join(columns.values())} {series}")
            for key, value in TAGS.items():
                database.sql(f"INSERT INTO tags (key, value, run_uuid) SELECT '{key}', {value}, md5(k::text) {series}")
            database.sql("VACUUM ANALYZE")
            ((identity, start),) = database.sql(f"SELECT md5('identity' || {count // 2}), md5('{count // 2}')")
            store = Store(f"{database.server}/tracking")
            asked = {
                "the newest 51": lambda: store.runs(limit=51),
                "a name": lambda: store.find(f"vae-{count // 2}"),
                "the start of an id": lambda: store.find(start[:12]),
                "an identity": lambda: store.newest(kind="run", identity=identity),
                "the running runs of this machine": store.mark_dead,
            }
            print(f"{count:,} runs in PostgreSQL")
            for title, ask in asked.items():
                best = 1e9
                for _ in range(3):
                    begun = time.perf_counter()
                    ask()
                    best = min(best, time.perf_counter() - begun)
                print(f"{title:34} {best:6.2f} s", flush=True)
        finally:
            database.remove()


if __name__ == "__main__":
    main()
