"""Errors of a store: in plain words, and whether the store refuses what was sent or does not answer."""

import errno
import re
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.exceptions import MlflowException

from aelab.errors import UserError, redacted
from aelab.tracking.spool import Entry

SILENCE_SECONDS = 5.0  # of waiting before a message
SILENCE_SECONDS_FILE = 20.0  # for a store that is a file, which a busy machine creates slowly
PLAIN_REASONS = [  # (message of a library, what the user is told)
    (r"database( table)? is locked", "it is locked by another program"),
    (r"database or disk is full|No space left|Errno 28", "its disk is full"),
    (r"readonly database|Read-only file system", "it is read-only"),
    (r"Can't locate revision", "a newer MLflow has written it; update MLflow"),
    (
        r"out-of-date database schema",
        "another version of MLflow wrote it; if an older one, make a copy, then: mlflow db upgrade URI",
    ),
    (r"not a database|malformed|disk I/O error", "it is damaged, or not a database"),
    (r"start_time cannot be None", "a run in it has no start time"),
    (r"no such table", "it is not a database of MLflow's, or damaged"),
    (r"unable to open database file", "the file cannot be opened"),
    (r"too many (\d+) error responses", r"it answers with HTTP error \1"),
    (r"failed with error code (\d+)", r"it answers with HTTP error \1"),
    (r"not in a valid JSON format|Failed to parse", "what answers there is not an MLflow server"),
    (r"timed out|timeout exception", "it does not answer in time"),
    (r"Names may only contain", "a name may hold letters, digits, spaces and _ - . : / only"),
    (r"password authentication failed|no password supplied", "the database refuses the password, or there is none"),
    (r'database "[^"]*" does not exist', "there is no database of that name"),
    (r"(?i)connection refused", "nothing listens there"),
    (r"Failed to resolve|NameResolutionError|Name or service not known", "there is no host of that name"),
    (
        r"Connection reset|Connection broken|Connection aborted|RemoteDisconnected|Max retries exceeded",
        "the connection breaks",
    ),
]
FILTER_REASONS = [  # (MLflow's message about a filter, what the user is told)
    (
        r"Expected a quoted string value",
        "an option, a tag or a status is compared with a text in quotes, also if it is a number",
    ),
    (r"Expected numeric value", "a metric or a time is compared with a number without quotes"),
    (r"Invalid attribute key '(.*?)'", r"'\1' is neither params.\1 (an option), metrics.\1 nor tags.\1"),
    (r"Invalid entity type '(.*?)'", r"'\1.' is none of params., metrics., tags. and attributes"),
    (r"Invalid comparator '(.*?)' not one of", r"it cannot be compared by \1"),
    (r"found '((?:metrics|params|tags)\.[^`]*/.*?)'", "a name with a slash stands in backticks"),
    (
        r"Invalid (clause|comparison|filter)",
        "it is not of the form NAME OPERATOR VALUE, or several of them joined by and",
    ),
    (r"contained multiple expression", "it is more than one expression"),
]
FILTER_EXAMPLE = """--filter 'params.latent_dim = "2" and metrics.`test/mse` < 0.02'"""
LONGEST_METRIC_NAME = 250  # characters
COLLISION = (
    r"IntegrityError|UniqueViolation|UNIQUE constraint|[Dd]uplicate (key|entry)"  # SQLAlchemy's and databases' words
)
WRITES = 4  # attempts to write what others write too
TRANSIENT = (401, 403, 404, 407, 408, 425, 429)  # HTTP statuses with which a later attempt may succeed


def reason_of(error: BaseException) -> str:
    """An exception in one line without passwords: in plain words if it is a known one, else its first line."""
    text = str(error).strip()
    for pattern, words in PLAIN_REASONS:
        if match := re.search(pattern, text):
            return match.expand(words)
    return redacted((text or type(error).__name__).splitlines()[0])[:200].rstrip(".")


def bad_filter(filter_string: str, error: BaseException) -> UserError:
    """What a user is told about a filter that MLflow does not accept, with an example of one that it does."""
    text = str(error)
    known = (match.expand(words) for pattern, words in FILTER_REASONS if (match := re.search(pattern, text)))
    why = next(known, reason_of(error))
    return UserError(f"--filter {filter_string[:80]}: {why}.", f"Write it like this: {FILTER_EXAMPLE}", code=2)


def valid_metric_name(name: str) -> bool:
    """Whether MLflow accepts this name for a metric."""
    plain = re.fullmatch(r"[\w.\- :]+(/[\w.\- :]+)*", name) and len(name) <= LONGEST_METRIC_NAME
    return bool(plain) and not name.startswith("..") and not {".", ".."} & set(name.split("/"))


def refused(error: BaseException) -> bool:
    """Whether the store refuses what was sent for good; false if the store or the connection fails."""
    if getattr(error, "error_code", "") in ("INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST"):
        return True
    status = getattr(getattr(error, "response", None), "status_code", 0)
    if match := re.search(r"failed with error code (\d+)", str(error)):
        status = int(match[1])
    if status:
        return 400 <= status < 500 and status not in TRANSIENT
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, OSError):  # includes the errors of requests, some of which are ValueErrors too
            return cause.errno == errno.ENAMETOOLONG
        if isinstance(cause, (ValueError, TypeError, OverflowError)):
            return True
        if type(cause).__name__ in ("IntegrityError", "DataError"):  # SQLAlchemy's
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def collided(error: MlflowException) -> bool:
    """Whether another process has just written the same row."""
    return re.search(COLLISION, str(error)) is not None


def written_once(write: Callable[[], Any]) -> None:
    """Writes to the store, again if another process wrote the same row at this moment: the store then finds it there."""
    for left in reversed(range(WRITES)):
        try:
            write()
        except MlflowException as error:
            if not left or not collided(error):
                raise
        else:
            return


def deliver(
    batch: list[Entry],
    post: Callable[[list[Entry]], Any],
    check: Callable[[], Any],
    refuse: Callable[[Entry, str], Any],
    refused_names: Container[str] = (),
) -> None:
    """Posts a batch; if the store refuses it, its halves, and so on. `refuse` is called with each refused entry and the reason.

    Metrics whose name was refused before and is invalid are not posted. `check` is called after each refusal; it and `post`
    raise if the store does not answer.
    """
    rest = []
    for entry in batch:
        if entry[0] == "metric" and entry[1] in refused_names and not valid_metric_name(entry[1]):
            refuse(entry, "its name")
        else:
            rest.append(entry)
    if not (batch := rest):
        return
    try:
        post(batch)
    except Exception as error:
        if not refused(error):
            raise
        check()
        if len(batch) == 1:
            refuse(batch[0], reason_of(error))
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]) if len(batch) > 1 else ():
            deliver(half, post, check, refuse, refused_names)


@contextmanager
def waiting_for_store(uri: str, say: Callable[[str], None], *, is_file: bool) -> Iterator[None]:
    """Says after a while, SILENCE_SECONDS or SILENCE_SECONDS_FILE, that the block is waiting for a store."""
    seconds = SILENCE_SECONDS_FILE if is_file else SILENCE_SECONDS
    timer = threading.Timer(seconds, say, [f"still waiting for the store {uri}; Ctrl-C ends it."])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
