"""Checks before a store is opened: its address, its server, its database. A new database is created atomically."""

import http.client
import os
import re
import sqlite3
import urllib.error
import urllib.parse
import urllib.request
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

import mlflow
import sqlalchemy
from filelock import FileLock
from mlflow.tracking import MlflowClient

from aelab.errors import UserError, redacted
from aelab.tracking.start_up import no_collection
from aelab.tracking.trouble import reason_of

LOCKED_SECONDS = 10.0  # to wait for a database that another program has locked
PING_SECONDS = 5.0  # to wait for a server's first answer
ATTEMPTS = 3  # to connect to a database; MLflow's default of ten takes 100 seconds


class NoStoreError(UserError):
    """There is no store at this address, and the command only reads."""


def checked(uri: str) -> str:
    """The address with its scheme in lower case. Raises UserError if MLflow cannot use it."""
    scheme, colon, rest = uri.strip().partition(":")
    uri = scheme.lower() + colon + rest
    shown = redacted(uri)
    if is_server(uri):
        try:
            parts = urllib.parse.urlsplit(uri)
            good = bool(parts.hostname) and not re.search(r"[\s\x00-\x1f\x7f]", uri) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good:
            raise UserError(
                f"'{shown}' is not the address of a server.", "Write it as in http://127.0.0.1:5000", code=2
            )
    database = database_of(uri)
    if scheme.lower().startswith("sqlite") and (database is None or str(database) in (".", ":memory:")):
        raise UserError(f"'{shown}' names no file.", "Write it as in sqlite:////home/me/runs/mlflow.db", code=2)
    if database and any(sign in str(database) for sign in "?%'\""):
        raise UserError(
            f"MLflow cannot keep a database at {database}: its address may not contain ? % ' or \".",
            "Work in another folder, or name another store: --tracking-uri sqlite:////PATH/mlflow.db",
            code=2,
        )
    if database and os.path.isdir(database):  # noqa: PTH112  # Path.is_dir raises without permission
        raise UserError(
            f"{database} is a folder, not a database.", f"Name the file in it: --tracking-uri {shown}/mlflow.db", code=2
        )
    if database and os.path.exists(database) and not os.path.isfile(database):  # noqa: PTH110, PTH113
        raise UserError(f"{database} is not a file.", "Name another place for the database: --tracking-uri", code=2)
    if "://" not in uri and not uri.startswith(("file:", "databricks")):
        raise UserError(f"'{shown}' is not the address of a store.", f"A database would be: sqlite:///{shown}", code=2)
    return uri


def has_content(database: Path) -> bool:
    """Whether the file exists and is not empty, as MLflow turns an empty file into a database. Raises UserError if unknown."""
    try:
        return database.stat().st_size > 0
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UserError(f"cannot open the store sqlite:///{database}: {error.strerror}.") from error


def is_server(uri: str) -> bool:
    """Whether an address is that of a server."""
    return uri.startswith(("http://", "https://"))


def database_of(uri: str) -> Path | None:
    """The file of a SQLite store; None for another kind of store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


def ping(uri: str) -> None:
    """Raises UserError if no server answers within PING_SECONDS."""
    try:
        with urllib.request.urlopen(redacted(uri).rstrip("/") + "/health", timeout=PING_SECONDS):
            return
    except urllib.error.HTTPError:
        return  # it answers; MLflow will report what is wrong
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(error, http.client.HTTPException) and not isinstance(error, OSError):
            reason = "what answers there is not a web server"
        raise UserError(
            f"no MLflow server answers at {redacted(uri)}: {reason}",
            "Start it, or correct MLFLOW_TRACKING_URI or --tracking-uri.",
            "Or train with --offline, into ./mlflow.db; aelab sync sends the runs later.",
        ) from error


def prepare_database_access() -> None:
    """Imports MLflow's modules for databases, and limits their attempts to connect."""
    with no_collection():
        import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
        from mlflow.store.db import utils

    utils.MAX_RETRY_COUNT = ATTEMPTS


def is_database_server(uri: str) -> bool:
    """Whether an address is that of a database on a server, such as postgresql://host/name."""
    return re.match(r"(postgresql|mysql|mssql)(\+\w+)?://", uri) is not None


def check_database_server(uri: str) -> None:
    """Raises UserError if a database on a server does not answer, or has not the tables that this MLflow expects.

    MLflow itself would make them, or migrate them where some are missing. A group's database is nothing that one user changes.
    """
    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
    except ModuleNotFoundError as error:
        extra = "Install it: pip install 'aelab[postgres]'" if uri.startswith("postgresql") else "Install it with pip."
        raise UserError(
            f"the store {redacted(uri)} needs the package {error.name}, which is not installed.", extra, code=2
        ) from error
    except (sqlalchemy.exc.ArgumentError, ValueError) as error:
        raise UserError(f"'{redacted(uri)}' is not the address of a database.", code=2) from error
    try:
        with engine.connect() as connection:
            tables = sqlalchemy.inspect(connection).get_table_names()
            versions = (
                connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalars().all()
                if "alembic_version" in tables
                else []
            )
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise cannot_open(uri, error) from error
    finally:
        engine.dispose()
    if not versions:
        raise UserError(
            f"the database {redacted(uri)} has no tables of MLflow's.",
            f"Its server makes them: mlflow server --backend-store-uri {redacted(uri)}",
            code=2,
        )
    check_schema(uri, versions[0])


def check_schema(uri: str, version: str) -> None:
    """Raises UserError if a database was written by another version of MLflow; only its owner migrates it."""
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from mlflow.store.db import utils

    scripts = ScriptDirectory.from_config(utils._get_alembic_config(""))  # type: ignore[no-untyped-call]
    if version in scripts.get_heads():
        return
    try:
        scripts.get_revision(version)
    except CommandError as error:
        raise UserError(
            f"cannot open the store {redacted(uri)}: a newer MLflow has written it; update MLflow."
        ) from error
    raise UserError(
        f"the store {redacted(uri)} was made by an older MLflow than the {mlflow.__version__} here, which must migrate it.",
        f"Make a backup, stop what writes to it, then: mlflow db upgrade {redacted(uri)}",
        "An older MLflow cannot open it after that.",
    )


def check_database(database: Path) -> None:
    """Raises UserError if a database cannot be read, or is not this MLflow's. MLflow itself would retry for a long time."""
    try:
        # rw, also where it is read only: SQLite must be allowed to roll back what a killed process left half written
        address = f"file:{urllib.parse.quote(str(database.absolute()))}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=LOCKED_SECONDS)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            known = "alembic_version" in tables
            versions = connection.execute("SELECT version_num FROM alembic_version").fetchall() if known else []
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise cannot_open(f"sqlite:///{database}", error) from error
    if tables and not known:  # MLflow would add its tables to it
        raise UserError(f"{database} belongs to another program.", "Name another store: --tracking-uri", code=2)
    for (version,) in versions:
        check_schema(f"sqlite:///{database}", str(version))


def cannot_open(uri: str, error: BaseException) -> UserError:
    """The error for a store that cannot be opened."""
    reason = reason_of(error)
    advice = []
    if database_of(uri) and "locked" in reason:
        advice = ["Wait for that program, or end it, and type the command again."]
    elif database_of(uri) and "damaged" in reason:
        advice = ["Restore it from a copy, or name another store: --tracking-uri"]
    return UserError(f"cannot open the store {redacted(uri)}: {reason}.", *advice)


def create(database: Path) -> None:
    """Creates a database under another name, then renames it: an incomplete database could never be opened."""
    part = database.with_name(f"{database.name}.part")
    for left in database.parent.glob(f"{part.name}*"):
        left.unlink()
    try:
        MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)
        part.replace(database)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def creation_lock(database: Path) -> AbstractContextManager[Any]:
    """The lock for creating a database, as processes that create it at the same time would break it.

    There is no lock if the database exists and its folder is not writable: it can still be read.
    """
    read_only = database.exists() and not os.access(database.parent, os.W_OK)
    return nullcontext() if read_only else FileLock(f"{database}.lock", timeout=60)
