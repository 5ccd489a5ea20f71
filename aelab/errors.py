"""Errors that are meant for the user: a few lines instead of a traceback."""

import re
import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


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


def reason(error: "ValidationError") -> str:
    """The first reason why pydantic rejects a value, in one line that begins with the value."""
    first = error.errors(include_url=False)[0]
    shown, message = f"{reprlib.repr(first['input']):.60}", first["msg"]
    return f"{shown} {message.removeprefix('Input ')}" if message.startswith("Input ") else f"{shown}: {message}"


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
