"""The page of the lecture and its slides: one HTML file each, which needs nothing from the network."""

import json
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from aelab.lecture.models import Setting
from aelab.lecture.sections import Drawn, Live, Section

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Head:
    """What the page says about itself."""

    command: str
    data: str
    seed: int
    version: str
    made: str

    @classmethod
    def now(cls, setting: Setting, only: Sequence[str], data: Iterable[str]) -> "Head":
        words = ["aelab lecture"] + ["--quick"] * setting.quick
        words += [f"--colour {shlex.quote(str(setting.colour))}"] * bool(setting.colour)
        words += [f"--only {shlex.quote(','.join(only))}"] * bool(only) + [f"--seed {setting.seed}"] * bool(
            setting.seed
        )
        made = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        return cls(" ".join(words), ", ".join(data), setting.seed, metadata.version("aelab"), made)


def page(sections: Sequence[Section], head: Head, *, slides: bool = False) -> str:
    """The HTML of all sections, as a page to scroll through or as slides."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["mathml"] = mathml
    environment.filters["json"] = as_json
    environment.tests["drawn"] = lambda each: isinstance(each, Drawn)
    environment.tests["live"] = lambda each: isinstance(each, Live)
    files = ("page.css", "slides.css", "decoder.js", "page.js", "slides.js")
    texts = {name.replace(".", "_"): Markup((HERE / name).read_text(encoding="utf-8")) for name in files}
    template = environment.get_template("slides.html" if slides else "page.html")
    return template.render(sections=sections, head=head, **texts)


def mathml(latex: str) -> Any:
    """An equation of LaTeX as MathML, which a browser shows without a script or a font."""
    from markupsafe import Markup
    from math_core import LatexToMathML

    return Markup(LatexToMathML().convert_with_local_state(latex, displaystyle=True))  # from topics.py


def as_json(value: object) -> Any:
    """A value as JSON that can stand in a script element: no text in it ends that element."""
    from markupsafe import Markup

    return Markup(json.dumps(value, separators=(",", ":")).replace("<", "\\u003c"))
