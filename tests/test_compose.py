"""compose.yaml is read, not started: Docker is not everywhere. tests/test_postgres.py starts the same pieces without it."""

import re
import warnings
from importlib.metadata import version
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "compose.yaml").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load(TEXT)
DATABASE, SERVER = COMPOSE["services"]["database"], COMPOSE["services"]["server"]


def test_the_server_is_started_with_options_that_mlflow_has():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.cli import server
    program, verb, *options = SERVER["command"]
    assert (program, verb) == ("mlflow", "server")
    known = {name for parameter in server.params for name in parameter.opts}
    given = dict(option.partition("=")[::2] for option in options)
    assert set(given) <= known and "--serve-artifacts" in given
    assert given["--backend-store-uri"] == f"postgresql://{DATABASE['environment']['POSTGRES_USER']}@database/mlflow"
    assert given["--artifacts-destination"] in {volume.partition(":")[2] for volume in SERVER["volumes"]}


def test_it_has_the_versions_that_are_tested():
    installed = dict(re.findall(r"([\w\[\]]+)==([\d.]+)", SERVER["build"]["dockerfile_inline"]))
    assert installed == {"mlflow": version("mlflow"), "psycopg[binary]": version("psycopg")}


def test_the_password_is_in_no_argument_and_what_is_set_is_documented():
    assert DATABASE["environment"]["POSTGRES_PASSWORD"].startswith("${POSTGRES_PASSWORD:?")
    assert SERVER["environment"]["PGPASSWORD"] == "${POSTGRES_PASSWORD}" and "PASSWORD" not in str(SERVER["command"])
    page = (ROOT / "docs/howto/server.md").read_text(encoding="utf-8")
    assert all(name in page for name in re.findall(r"\$\{(\w+)", TEXT))
    assert SERVER["ports"] == ["${ADDRESS:-127.0.0.1}:5000:5000"], "this machine only, unless the group says otherwise"


def test_services_and_volumes_are_there():
    assert set(SERVER["depends_on"]) <= set(COMPOSE["services"]) and DATABASE["healthcheck"]
    used = {volume.partition(":")[0] for service in (DATABASE, SERVER) for volume in service["volumes"]}
    assert used == set(COMPOSE["volumes"])
