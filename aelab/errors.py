"""Errors that are meant for the user: a few lines instead of a traceback."""

import inspect
import logging
import re
import reprlib
from collections.abc import Callable, Iterable
from functools import wraps
from types import FunctionType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from pydantic import ValidationError

CLOSE = 0.65  # of difflib: vea is as near to vae, beta and data are further apart

P = ParamSpec("P")
R = TypeVar("R")


class UserError(Exception):
    """A mistake of the user's, or an obstacle, in one to three lines: what, why, what to type.

    `code` is the exit status of the command line: 1 failed, 2 wrong usage.
    """

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("\n".join(map(visible, lines)))
        self.code = code


def visible(text: str) -> str:
    """A line that is safe to print: characters that a terminal acts on (escapes, line breaks, reversed text) are spelled out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def similar(name: str, known: Iterable[str]) -> list[str]:
    """The names, at most three, that were probably meant: those that are spelled much alike, and those that begin alike."""
    from difflib import get_close_matches

    names = list(known)
    alike = get_close_matches(name, names, 3, CLOSE)
    begun = [
        each for each in names if min(len(name), len(each)) > 1 and (each.startswith(name) or name.startswith(each))
    ]
    return list(dict.fromkeys([*alike, *begun]))[:3]


def did_you_mean(names: list[str]) -> str:
    """A question that can follow a sentence; empty if there are no names."""
    return f" Did you mean {' or '.join(names)}?" if names else ""


def shown(record: logging.LogRecord) -> str:
    """A logged message as it can be shown: one line, but for a UserError, which has lines of its own."""
    return str(record.msg) if isinstance(record.msg, UserError) else visible(record.getMessage())


def reason(error: "ValidationError") -> str:
    """The first reason why pydantic rejects a value, in one line that begins with the value."""
    first = error.errors(include_url=False)[0]
    message = first["msg"].removeprefix("Value error, ").partition(", unable to ")[0]
    shown = f"{reprlib.repr(first['input']):.60}"
    return f"{shown} {message.removeprefix('Input ')}" if message.startswith("Input ") else f"{shown}: {message}"


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """A function that raises UserError, before it does anything, for an argument that its annotations do not allow.

    What can become the right type does, as pydantic converts it: a string becomes a path.
    """
    assert isinstance(function, FunctionType)
    names = list(inspect.signature(function).parameters)
    validated: list[Callable[..., R]] = []  # made at the first call: pydantic takes a while to import

    @wraps(function)
    def inner(*arguments: P.args, **named: P.kwargs) -> R:
        from pydantic import ValidationError

        if not validated:
            validated.append(_validated(function))
        try:
            return validated[0](*arguments, **named)
        except ValidationError as error:
            if error.title != function.__name__:
                raise  # from within the function
            first = error.errors(include_url=False)[0]
            where = first["loc"][0]
            name = names[where] if isinstance(where, int) and where < len(names) else where
            what = f"{name}: {reason(error)}"
            if "missing" in first["type"]:
                what = f"{name} is missing"
            elif first["type"] == "unexpected_keyword_argument":
                what = f"there is no argument {name}; it has {', '.join(names)}"
            raise UserError(f"{function.__name__}: {what}.", code=2) from None

    return inner


def _validated(function: FunctionType) -> Callable[..., Any]:
    """The function with its arguments checked by pydantic; its result is not, and may be of a type that is not imported."""
    from pydantic import ConfigDict, validate_call

    code, scope, name = function.__code__, function.__globals__, function.__name__
    copy = FunctionType(code, scope, name, function.__defaults__, function.__closure__)
    copy.__kwdefaults__, copy.__qualname__, copy.__module__ = function.__kwdefaults__, name, function.__module__
    copy.__annotations__ = {key: hint for key, hint in function.__annotations__.items() if key != "return"}
    return validate_call(config=ConfigDict(arbitrary_types_allowed=True))(copy)


def redacted(text: str) -> str:
    """A text without the passwords and tokens in its addresses."""
    text = re.sub(r"://[^/\s'\"]*@", "://", text)
    return re.sub(r"(?i)\b(password|passwd|pwd|token|secret|api_?key)=[^&\s'\"]+", r"\1=***", text)


def out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, on the host or on the device. torch has an exception for the device only."""
    named = type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "out of memory" in str(error)
    return named or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def no_memory() -> UserError:
    """The error for that. The batch size is never changed silently."""
    return UserError("out of memory.", "Try a smaller --batch-size, or a smaller model.")
