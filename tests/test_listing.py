"""A full store: what is asked of it. The requests are counted, not timed; benchmarks/many_runs.py has times."""

import itertools
import shutil

import pytest
from mlflow.tracking import MlflowClient

from aelab.errors import UserError
from aelab.tracking import Store, opening
from aelab.tracking.naming import find_run
from aelab.workflows import listed, resuming

RUN = {"aelab.kind": "run", "aelab.recipe": "vae"}


@pytest.fixture(scope="module")
def full_database(tmp_path_factory):
    """130 runs, the oldest first: alone and in sweeps, of three recipes, of all statuses, with names that are hard to ask for."""
    folder = tmp_path_factory.mktemp("full")
    store = Store(f"sqlite:///{folder}/mlflow.db")
    experiment = store.experiment(None)
    clock = itertools.count(1_700_000_000_000, 1000)

    def add(name, status="FINISHED", **tags):
        begun = store.client.create_run(experiment, start_time=next(clock), run_name=name, tags={**RUN, **tags})
        if status != "RUNNING":
            store.client.set_terminated(begun.info.run_id, status)
        return begun.info.run_id

    for name in (
        "it's",
        'a "b"',
        'it\'s "c"',
        "50%",
        "under_score",
        "underXscore",
        "back\\",
        "a;b --c",
        "twice",
        "twice",
        "VAE",
    ):
        add(name)
    add("of gan", **{"aelab.recipe": "gan"})
    add("of rbm", "FAILED", **{"aelab.recipe": "rbm"})
    add("vaegan", **{"aelab.recipe": "vaegan"})  # named after its recipe
    add("newer vaegan", **{"aelab.recipe": "vaegan"})
    for k in range(40):
        add(f"old-{k}", "KILLED" if k % 4 == 0 else "FINISHED")
    sweep = add("sweep", **{"aelab.kind": "sweep"})
    for k in range(70):
        add(f"point-{k}", "FAILED" if k % 5 == 4 else "FINISHED", **{"mlflow.parentRunId": sweep})
    add("elsewhere", "RUNNING", **{"aelab.process": "another-host 1 1"})
    with_parent = {"aelab.recipe": "gan", "mlflow.parentRunId": sweep}
    add("last of gan", **with_parent)
    return folder / "mlflow.db"


@pytest.fixture
def store(full_database, here):
    shutil.copy(full_database, here / "mlflow.db")
    return Store()


@pytest.fixture
def asked(monkeypatch):
    """The number of runs in each answer of the store."""
    answers, search = [], MlflowClient.search_runs

    def counted(self, *arguments):
        page = search(self, *arguments)
        answers.append(len(page))
        return page

    monkeypatch.setattr(MlflowClient, "search_runs", counted)
    return answers


def test_a_name_means_what_it_would_mean_if_every_run_were_fetched(store):
    runs = store.runs()
    names = {run.name for run in runs} | {
        "vae",
        "gan",
        "rbm",
        "vaegan",
        "linear",
        "",
        "no such",
        "'",
        "%",
        "a' or '1' = '1",
    }
    names |= {run.id for run in runs[:3]} | {run.id[:8] for run in runs[:20]} | {run.id[:8].upper() for run in runs[:3]}
    names |= (
        {run.id[:2] for run in runs[:20]} | {run.id[0] for run in runs[:3]} | {f"mlruns/aelab/{runs[5].id}/artifacts"}
    )

    def meaning(find):
        try:
            return find().id
        except UserError as error:
            return str(error)

    for name in names:
        assert meaning(lambda name=name: store.find(name)) == meaning(
            lambda name=name: find_run(name, runs, store.shown_uri)
        ), name


@pytest.mark.parametrize(("name", "most"), [("old-7", 1), ("vae", 2), ("gan", 3), (None, 3)], ids=str)
def test_a_run_is_found_without_fetching_the_others(store, asked, name, most):
    name = name or store.runs(limit=1)[0].id[:12]
    asked.clear()
    store.find(name)
    assert len(asked) <= 4 and sum(asked) <= most


def test_the_table_asks_for_as_many_runs_as_it_shows(store, cli, asked):
    shown = cli("runs")
    assert shown.code == 0 and asked == [0, 51, 1], (
        "the running ones of this machine, the newest, and the parent of the sweep"
    )
    lines = shown.out.splitlines()
    assert sum("point-" in line for line in lines) == 48 and sum(line.split()[1] == "sweep" for line in lines) == 1
    assert "These are the newest 50. Others: aelab runs --limit N" in shown.err
    asked.clear()
    few = cli("runs", "--limit", 2)
    assert "last of gan" in few.out and "elsewhere" in few.out and "old-" not in few.out and asked == [0, 3, 1]
    assert not few.err
    every = cli("runs", "--all")
    assert "old-0" in every.out and "of gan" in every.out and not every.err
    assert len(cli("runs", "--json").json["runs"]) == len(store.runs()), "a program asks for all"
    assert len(cli("runs", "--json", "--limit", 1, "--recipe", "rbm").json["runs"]) == 1
    assert cli("runs", "--all", "--limit", 3).code == 2 and cli("runs", "--limit", 0).code == 2


def test_the_store_filters(store, cli, asked):
    few = cli("runs", "--recipe", "gan", "--filter", "attributes.run_name LIKE 'last%'")
    assert "last of gan" in few.out and asked == [0, 1]
    for wrong in ("params.a = 'x", "a or b", "x; y", "params.a = '1' --", "'"):
        answer = cli("runs", "--filter", wrong)
        assert answer.code == 2 and "aelab.recipe" not in answer.err and len(answer.err.splitlines()) <= 3, answer.err


def test_no_more_than_the_running_runs_of_this_machine_are_looked_at_for_dead_ones(store, asked):
    assert store.mark_dead() == [] and asked == [0]


def test_the_newest_stopped_run_is_looked_for_page_by_page(store, asked, monkeypatch):
    looked_at = []
    monkeypatch.setattr(
        resuming, "_can_continue", lambda info, store: looked_at.append(info.name) or info.name == "old-32"
    )
    assert resuming.choose("vae", store).name == "old-32"
    assert looked_at == ["elsewhere", "old-36", "old-32"], "those alone first, the newest first"
    looked_at.clear()
    monkeypatch.setattr(resuming, "_can_continue", lambda info, store: info.name == "point-4")
    assert resuming.choose(None, store).name == "point-4", "then those of sweeps"


def test_a_run_that_begins_between_two_pages_is_not_listed_twice(store):
    pages = store.each(at_once=10)
    first = [next(pages) for _ in range(10)]
    store.client.create_run(store.experiment(None), run_name="new", tags=RUN)
    names = [info.id for info in (*first, *pages)]
    assert len(names) == len(set(names)) == len(store.runs()) - 1


def test_runs_of_other_programs_are_not_fetched(store, asked):
    for _ in range(3):
        store.client.create_run(store.experiment(None), run_name="not ours")
    asked.clear()
    found, more = listed(store, limit=2)
    assert {info.name for info in found} == {"elsewhere", "last of gan", "sweep"}
    assert more and asked == [0, 3, 1]


# databases on servers


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql+pg8000://me:secret@127.0.0.1:9/x", "needs the package pg8000, which is not installed"),
        ("mysql+pymysql://me:secret@127.0.0.1:9/x", "needs the package pymysql, which is not installed"),
        ("postgresql+nonsense://me:secret@127.0.0.1:9/x", "is not the address of a database"),
        ("postgresql://me:secret@127.0.0.1:9/x", "nothing listens there"),
        ("postgresql://me:secret@127.0.0.1:port/x", "is not the address of a database"),
    ],
)
def test_a_database_on_a_server_that_cannot_be_opened(cli, uri, words):
    answer = cli("runs", "--tracking-uri", uri)
    assert answer.code in (1, 2) and words in answer.err and len(answer.err.splitlines()) <= 3, answer.err
    assert "secret" not in answer.err and "Traceback" not in answer.err


def test_the_driver_of_postgresql_is_named_with_the_extra_that_brings_it(cli, monkeypatch):
    def missing(*_, **__):
        raise ModuleNotFoundError("No module named 'psycopg'", name="psycopg")

    monkeypatch.setattr(opening.sqlalchemy, "create_engine", missing)
    answer = cli("runs", "--tracking-uri", "postgresql://host/runs")
    assert answer.code == 2
    assert "postgresql://host/runs needs the package psycopg, which is not installed." in answer.err
    assert "pip install 'aelab[postgres]'" in answer.err
