"""What the user is told instead of a traceback."""

import re
import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """A mistake or an obstacle, in one to three lines: what, why, what to type.

    `code` is the exit status it leads to: 1 failed, 2 wrong usage.
    """

    def __init__(self, *lines: str, code: int = 1) -> None:
        super().__init__("\n".join(map(visible, lines)))
        self.code = code


def visible(text: str) -> str:
    """A line as it can be shown: what a terminal would obey instead (escapes, line breaks, reversed writing) is spelled out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def reason(error: "ValidationError") -> str:
    """What pydantic says first of a value that it refuses, on one line that begins with this value."""
    first = error.errors(include_url=False)[0]
    shown, message = f"{reprlib.repr(first['input']):.60}", first["msg"]
    return f"{shown} {message.removeprefix('Input ')}" if message.startswith("Input ") else f"{shown}: {message}"


def redacted(text: str) -> str:
    """A text without the passwords of the addresses in it."""
    text = re.sub(r"://[^/\s'\"]*@", "://", text)
    return re.sub(r"(?i)\b(password|passwd|pwd|token|secret|api_?key)=[^&\s'\"]+", r"\1=***", text)


def out_of_memory(error: BaseException) -> bool:
    """Whether the host's or the device's memory was too small; torch has an exception for the device alone."""
    named = type(error).__name__ in ("OutOfMemoryError", "AcceleratorError") and "out of memory" in str(error)
    return named or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def no_memory() -> UserError:
    """What is said then; the batch size is never changed behind the user's back."""
    return UserError("there is no memory left.", "Try a smaller --batch-size, or a smaller model.")
