"""What a sweep varies: the values of each option, typed as 2,5,10 or 1e-4..1e-2:log:5, checked before anything is trained."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, get_origin

import numpy as np

from aelab import recipe_files
from aelab.errors import UserError, did_you_mean, similar
from aelab.recipe_files import Option, RecipeFile
from aelab.training import Settings, parse
from aelab.workflows.planning import Config

log = logging.getLogger(__name__)

SETTINGS = {each.name for each in fields(Settings)}
DATA = {"data", "image_size", "split_seed", "start"}  # fields of a Config that may vary
MAY_BE_NONE = {"augment", "image_size", "max_steps", "patience", "start"}  # an option that is left out
WITH_COMMAS = {"augment"}  # settings whose one value may have commas in it
RANGE = re.compile(r"(?P<low>[^.:]*(?:\.[^.:]+)?)\.\.(?P<high>[^:]+?)(?P<log>:log)?(?::(?P<count>[0-9]+))?")
MANY = 1000  # values of one option
DIGITS = 4  # significant ones, of a number between the ends of a range


@dataclass(frozen=True)
class Range:
    """The numbers between two ends, of which a search tries some: evenly, or evenly in their logarithm."""

    low: float
    high: float
    log: bool

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def values(self, count: int) -> list[Any]:
        """So many numbers from end to end, rounded to four significant digits, or to whole numbers."""
        between = (np.geomspace if self.log else np.linspace)(self.low, self.high, count)
        inner = [round(value) if self.whole else float(f"{value:.{DIGITS}g}") for value in between[1:-1]]
        return list(dict.fromkeys([self.low, *inner, self.high]))


def space(recipe_file: RecipeFile, given: Mapping[str, Any], *, search: bool) -> dict[str, list[Any] | Range]:
    """The values of each option in `given`, in its order; an option with one value does not vary.

    A value is plain, a list of them, or a text as it is typed. A list of texts joins what each of them means. Ranges without
    a number of values are for a `search` only. Raises UserError for an unknown option, and for a value that it cannot have.
    """
    of_recipe = {option.name: option for option in recipe_files.signature(recipe_file).options}
    known = of_recipe.keys() | SETTINGS | DATA
    found: dict[str, list[Any] | Range] = {}
    for name, value in given.items():
        if name not in known:
            raise UserError(
                f"{recipe_file.name} has no option {name}.{did_you_mean(similar(name, known))}",
                f"It has: {', '.join(of_recipe)}; and every recipe: {', '.join(sorted(SETTINGS | DATA))}",
                code=2,
            )
        read = _Reader(name, of_recipe.get(name))
        found[name] = read.several(value, search)
        _tell_of_one(name, found[name])
    return found


def _tell_of_one(name: str, values: list[Any] | Range) -> None:
    """Says that what may look like several values is one, a list of numbers such as 500,250."""
    if not isinstance(values, Range) and len(values) == 1 and isinstance(values[0], tuple) and len(values[0]) > 1:
        one = ",".join(map(str, values[0]))
        several = " ".join(f"{name}={each}" for each in values[0])
        log.info(f"{name}={one} is one value, a list of numbers; for several values write {several}")


def lists(recipe_file: RecipeFile, given: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values of each option of a grid; see `space`."""
    return {name: each for name, each in space(recipe_file, given, search=False).items() if isinstance(each, list)}


class _Reader:
    """Reads the values of one option: of the recipe, or of aelab's own."""

    def __init__(self, name: str, option: Option | None) -> None:
        self.name, self.option = name, option
        self.joined = name in WITH_COMMAS or (option is not None and get_origin(option.type) is tuple)

    def several(self, given: Any, search: bool) -> list[Any] | Range:
        """The values that are given for the option, each once."""
        if isinstance(given, str):
            found = self.typed(given, search)
        elif isinstance(given, Iterable) and not (self.joined and self._is_one(given)):
            parts = [self.several(each, search) for each in given]
            if any(isinstance(part, Range) for part in parts) and len(parts) > 1:
                raise UserError(f"{self.name}: a range to search stands alone.", code=2)
            found = parts[0] if len(parts) == 1 else [value for part in parts for value in part]  # type: ignore[union-attr]
        else:
            found = [given if given is None else self.checked(given)]
        if isinstance(found, Range):
            return found
        if not found:
            raise UserError(f"{self.name}: there is no value.", code=2)
        if len(found) > MANY:
            raise UserError(f"{self.name}: {len(found):,} values are more than {MANY:,}.", code=2)
        return list(dict.fromkeys(found))

    def typed(self, text: str, search: bool) -> list[Any] | Range:
        """The values of a text: with commas between them, or from end to end."""
        names = self.name in DATA - {"image_size", "split_seed"}
        span = None if names else RANGE.fullmatch(text.strip())
        if not span:
            if ".." in text and not names:
                raise UserError(
                    f"{self.name}={text}: a range is LOW..HIGH, LOW..HIGH:COUNT or LOW..HIGH:log:COUNT.", code=2
                )
            texts = [each.strip() for each in ([text] if self.joined else text.split(","))]
            if "" in texts:
                raise UserError(f"{self.name}={text}: a value is empty.", code=2)
            return [self.parsed(each) for each in texts]
        low, high = self.parsed(span["low"].strip()), self.parsed(span["high"].strip())
        if self.joined:
            raise UserError(f"{self.name}={text}: this option has several numbers, so it takes no range.", code=2)
        if not all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high)):
            raise UserError(f"{self.name}={text}: a range needs numbers at its ends.", code=2)
        between = Range(low, high, bool(span["log"]))
        if low >= high:
            raise UserError(
                f"{self.name}={text}: the range is empty; its first number must be the smaller one.", code=2
            )
        if between.log and low <= 0:
            raise UserError(f"{self.name}={text}: a logarithmic range begins above 0.", code=2)
        if span["count"]:
            if not 2 <= int(span["count"]) <= MANY:
                raise UserError(f"{self.name}={text}: a range has 2 to {MANY:,} values.", code=2)
            if between.whole and int(span["count"]) > between.high - between.low + 1:
                raise UserError(
                    f"{self.name}={text}: from {low} to {high} there are only {high - low + 1} whole numbers.", code=2
                )
            return between.values(int(span["count"]))
        if search:
            return between
        if between.whole and not between.log:
            if high - low >= MANY:
                raise UserError(f"{self.name}={text}: {high - low + 1:,} values are more than {MANY:,}.", code=2)
            return list(range(int(low), int(high) + 1))
        raise UserError(
            f"{self.name}={text}: say how many values, such as {self.name}={text}:5.",
            "A search tries any of them: --trials 20",
            code=2,
        )

    def parsed(self, text: str) -> Any:
        """One value of a text. Raises UserError if the option cannot have it."""
        try:
            if text == "none" and self.name in MAY_BE_NONE:
                return None
            return self.option.parse(text) if self.option else parse(self._owner, self.name, text)
        except ValueError as error:
            raise UserError(f"{self.name}: {error}", code=2) from error

    def checked(self, value: Any) -> Any:
        """One value as a configuration holds it. Raises UserError if the option cannot have it."""
        plain = value.item() if isinstance(value, np.generic) else tuple(value) if self.joined else value
        try:
            if self.option:
                self.option.check(plain)
                return plain
            return parse(self._owner, self.name, plain, strict=True)
        except ValueError as error:
            raise UserError(f"{self.name}: {error}", code=2) from error

    @property
    def _owner(self) -> type:
        return Settings if self.name in SETTINGS else Config

    @staticmethod
    def _is_one(given: Any) -> bool:
        """Whether a sequence is one value of an option that has several numbers, such as hidden=[500, 250]."""
        return isinstance(given, Sequence) and all(isinstance(each, int) for each in given)
