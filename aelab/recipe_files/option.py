"""An option of a recipe: its type, default, bounds and help; how a value for it is parsed and checked."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from aelab.errors import UserError, reason

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}  # of annotated_types' Ge, Gt, Le, Lt and Interval
SETTINGS = ("epochs", "batch_size", "schedule", "warmup", "ema", "monitor")  # for which a recipe has a default
TYPES = {int: "INTEGER", float: "FLOAT", str: "TEXT", tuple[int, ...]: "INTEGER,..."}
WHOLE = ((">=", -(2**63)), ("<=", 2**63 - 1))  # what a tensor of whole numbers holds


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
        """What `--help` shows for its value: the type and the range."""
        return " ".join([TYPES.get(self.type, ""), *(f"{sign}{bound:g}" for sign, bound in self.bounds)])

    def parse(self, text: str) -> Any:
        """The value that was typed. Raises ValueError with a reason for one that is not of the type or out of range."""
        parts = [part for part in text.split(",") if part.strip()]
        return self._validated(parts if get_origin(self.type) is tuple else text)

    def check(self, value: object) -> None:
        """Raises ValueError for a value that nobody could have typed: a configuration may hold any."""
        self._validated(value, strict=True)

    def _validated(self, value: object, strict: bool = False) -> Any:
        """The value as pydantic returns it. Raises ValueError if it refuses it."""
        from pydantic import ValidationError

        try:
            return self._adapter.validate_python(value, strict=strict)
        except ValidationError as error:
            raise ValueError(reason(error)) from None

    @cached_property
    def _adapter(self) -> "TypeAdapter[Any]":
        """Checks type and bounds, those of each number of a tuple. No float may be infinite, no int need more than 64 bits."""
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
    """What the command line needs to know of a recipe."""

    options: tuple[Option, ...]
    settings: Mapping[str, Any]  # its defaults of SETTINGS
    doc: str  # its file's docstring
    takes_classes: bool  # whether the constructor wants the number of classes behind the shape of an image


def option(recipe: str, name: str, hint: Any, default: Any) -> Option:
    """The option that a keyword argument with this type and default is. Raises UserError for a type or bound that cannot be."""
    plain, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(plain) is tuple and get_args(plain) == (int, ...):
        plain = tuple[int, ...]  # typing.Tuple is another object
    if not (plain in (*TYPES, bool) or _is_choice(plain)):
        raise UserError(
            f"{recipe}: the option {name} cannot be typed on a command line.",
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
            f"{recipe}: the option {name} has a bound that does not fit its type.",
            "A float's is a number, that of an int or tuple[int, ...] a whole one; others have none.",
        )
    return Option(name, plain, default, help_line, bounds)


def _is_choice(hint: Any) -> bool:
    """Whether a type is one of some words."""
    return get_origin(hint) is Literal and all(isinstance(value, str) for value in get_args(hint))


def _is_valid_bound(kind: Any, bound: Any) -> bool:
    """Whether a value of this type can be compared with a bound."""
    if not isinstance(bound, (int, float)) or not abs(bound) <= sys.float_info.max:  # infinite or NaN
        return False
    return kind is float or (kind in (int, tuple[int, ...]) and bound == int(bound))
