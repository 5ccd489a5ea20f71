"""An option of a recipe: its type, default, bounds and help, and how its values are parsed and checked."""

import operator
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from aelab.errors import UserError, reason

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}  # of annotated_types' Ge, Gt, Le, Lt and Interval
COMPARED = {">=": operator.ge, ">": operator.gt, "<=": operator.le, "<": operator.lt}
SETTINGS = ("epochs", "batch_size", "schedule", "warmup", "ema", "monitor")  # for which a recipe has a default
TYPES = {int: "INTEGER", float: "FLOAT", str: "TEXT", tuple[int, ...]: "INTEGER,..."}
WHOLE = ((">=", -(2**63)), ("<=", 2**63 - 1))  # 64 bits, as in a tensor


def type_text(kind: Any, bounds: Sequence[tuple[str, float]]) -> str:
    """A type and a range as `--help` shows them: `INTEGER >=1`, `FLOAT 0..1`, `mlp|conv`."""
    if get_origin(kind) is Literal:
        return "|".join(map(str, get_args(kind)))
    limits = {sign: f"{bound:g}" for sign, bound in bounds}
    if limits.keys() == {">=", "<="}:
        return f"{TYPES[kind]} {limits['>=']}..{limits['<=']}"
    return " ".join([TYPES.get(kind, ""), *(f"{sign}{limit}" for sign, limit in limits.items())])


@dataclass(frozen=True)
class Option:
    """A keyword argument of a recipe, as it is typed on the command line."""

    name: str
    type: Any  # int, float, bool, str, Literal[...] or tuple[int, ...]
    default: Any
    help: str
    bounds: tuple[tuple[str, float], ...]  # such as (">=", 1)

    @property
    def metavar(self) -> str:
        """The type and the range, as `--help` shows them."""
        return type_text(self.type, self.bounds)

    def parse(self, text: str) -> Any:
        """The value of a text. Raises ValueError, with the reason, if it is not of the type or out of range."""
        parts = [part for part in text.split(",") if part.strip()]
        return self._validated(parts if get_origin(self.type) is tuple else text)

    def check(self, value: object) -> None:
        """Raises ValueError for a value of another type or out of range, as a configuration may hold any value."""
        self._validated(value, strict=True)

    def _validated(self, value: object, strict: bool = False) -> Any:
        """The value, validated by pydantic. Raises ValueError if it is invalid."""
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value, strict=strict)
        except ValidationError as error:
            raise ValueError(reason(error)) from None

    @cached_property
    def _adapter(self) -> "TypeAdapter[Any]":
        """The validator of type and bounds, in a tuple of each number. Floats must be finite, and ints fit into 64 bits."""
        from pydantic import Field, TypeAdapter

        if self.type not in TYPES or self.type is str:
            return TypeAdapter(self.type)
        bounds = [*self.bounds, *([] if self.type is float else WHOLE)]
        limits: dict[str, Any] = {"allow_inf_nan": False} if self.type is float else {}
        for name, sign in SIGNS.items():
            if values := [value for each, value in bounds if each == sign]:
                limits[name] = max(values) if ">" in sign else min(values)
        number: Any = Annotated[float if self.type is float else int, Field(**limits)]
        return TypeAdapter(tuple[number, ...] if get_origin(self.type) is tuple else number)


@dataclass(frozen=True)
class Signature:
    """What the command line needs to know about a recipe."""

    options: tuple[Option, ...]
    settings: Mapping[str, Any]  # the recipe's defaults of SETTINGS
    doc: str  # the docstring of the file, as it stands there
    takes_classes: bool  # whether the constructor takes the number of classes after the shape of an image
    needs_classes: bool  # whether it has no default for it


def option(where: str, name: str, hint: Any, default: Any) -> Option:
    """The option for a keyword argument with this type and default.

    Raises UserError, which begins with `where` it is, for an unsupported type or bound, and for a default out of bounds.
    """
    plain, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(plain) is tuple and get_args(plain) == (int, ...):
        plain = tuple[int, ...]  # typing.Tuple is another object
    if not (plain in (*TYPES, bool) or _is_choice(plain)):
        raise UserError(
            f"{where}: the option {name} cannot be typed on a command line.",
            "Its type must be int, float, bool, str, Literal of strings, or tuple[int, ...].",
        )
    help_line = next((note for note in notes if isinstance(note, str)), "")
    bounds = tuple(
        (sign, limit)
        for note in notes
        for field, sign in SIGNS.items()
        if (limit := getattr(note, field, None)) is not None
    )
    if not all(_is_valid_bound(plain, bound) for _, bound in bounds):
        raise UserError(
            f"{where}: the option {name} has a bound that does not fit its type.",
            "The bound of a float is a number, that of an int or tuple[int, ...] a whole number; other types have none.",
        )
    if not _is_within(default, plain, bounds):
        raise UserError(
            f"{where}: the default of the option {name}, {default!r:.60}, is not in its range: {type_text(plain, bounds)}."
        )
    return Option(name, plain, default, help_line, bounds)


def _is_choice(hint: Any) -> bool:
    """Whether a type is a Literal of strings."""
    return get_origin(hint) is Literal and all(isinstance(value, str) for value in get_args(hint))


def _is_valid_bound(kind: Any, bound: Any) -> bool:
    """Whether a bound is a finite number that fits values of this type."""
    if not isinstance(bound, (int, float)) or not abs(bound) <= sys.float_info.max:  # infinite or NaN
        return False
    return kind is float or (kind in (int, tuple[int, ...]) and bound == int(bound))


def _is_within(default: Any, kind: Any, bounds: Sequence[tuple[str, float]]) -> bool:
    """Whether a default is one of the choices, or its numbers are in the bounds. Its type is not checked."""
    if get_origin(kind) is Literal:
        return default in get_args(kind)
    numbers = [
        each for each in (default if isinstance(default, tuple) else (default,)) if isinstance(each, (int, float))
    ]
    return all(COMPARED[sign](number, bound) for number in numbers for sign, bound in bounds)
