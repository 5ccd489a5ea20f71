"""The tables on the pages of the models, made from the recipes and from the definitions of the metrics.

    python -m docs.model_tables

rewrites what stands between `<!-- options: RECIPE -->` or `<!-- metrics: NAME ... -->` and `<!-- end -->`.
tests/test_docs.py fails where a page is not what this would write.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args, get_origin

from aelab import metrics, recipe_files
from aelab.recipe_files import Option, Signature

PAGES = sorted((Path(__file__).parent / "models").glob("*.md"))
BLOCK = re.compile(r"<!-- (options|metrics): (.+?) -->\n.*?<!-- end -->", re.DOTALL)
KINDS = {bool: "", int: "integer", float: "number", str: "text", tuple[int, ...]: "integers, separated by commas"}
SIGNS = {">=": "≥", "<=": "≤"}
SCHEDULES = {
    "constant": "constant learning rate",
    "linear": "learning rate that falls linearly in the second half",
    "cosine": "learning rate that falls along half a cosine",
}
DIRECTION = {"lower": "↓", "higher": "↑", "": ""}


def values(option: Option) -> str:
    """What may be typed for an option."""
    if get_origin(option.type) is not None and option.type not in KINDS:
        return ", ".join(f"`{choice}`" for choice in get_args(option.type))
    bounds = (f"{SIGNS.get(sign, sign)} {bound:g}" for sign, bound in option.bounds)
    return f"{KINDS[option.type]} {', '.join(bounds)}".strip()


def row(option: Option) -> list[str]:
    flag = option.name.replace("_", "-")
    if option.type is bool:
        return [f"`--no-{flag}`" if option.default else f"`--{flag}`", "", "", option.help]
    default = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
    return [f"`--{flag}`", values(option), f"`{default}`", option.help]


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "&#124;") for cell in line) + " |\n" for line in lines)


def training(signature: Signature) -> str:
    """The recipe's defaults of the options that every recipe has."""
    defaults = signature.settings
    words = f"{defaults['epochs']} epochs, batches of {defaults['batch_size']}"
    words += f", {SCHEDULES[defaults['schedule']]}"
    words += f", weights averaged with decay {defaults['ema']:g}" if defaults["ema"] else ""
    kept = f"of the best `val/{defaults['monitor']}`" if defaults["monitor"] else "of the last epoch"
    return (
        f"Unless you say otherwise: {words}. The weights that are kept are those {kept}. `aelab train RECIPE --help` shows "
        "also the options that every recipe has, such as `--epochs` and `--seed`.\n"
    )


def filled(page: str) -> str:
    """The text of a page with its tables as they should be."""

    def block(found: re.Match[str]) -> str:
        kind, names = found.groups()
        if kind == "options":
            signature = recipe_files.signature(recipe_files.find(names))
            text = (
                table(["option", "values", "default", "what it is"], map(row, signature.options))
                + "\n"
                + training(signature)
            )
        else:
            defined = [metrics.DEFINITIONS[name] for name in names.split()]
            rows = ([f"`{d.name}` {DIRECTION[d.better]}".strip(), d.unit, d.formula] for d in defined)
            text = table(["metric", "unit", "what is computed"], rows)
        return f"<!-- {kind}: {names} -->\n\n{text}\n<!-- end -->"

    return BLOCK.sub(block, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
