"""Tables for the terminal, in Markdown, LaTeX and CSV. A column "NAME sd" holds the standard deviation of NAME."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Literal

from aelab.errors import visible
from aelab.metrics import definition, number

if TYPE_CHECKING:
    import pandas as pd

Style = Literal["terminal", "markdown", "latex"]
BEST = {"terminal": "{} *", "markdown": "**{}**", "latex": "\\textbf{{{}}}"}
PLUS_MINUS = {"terminal": " ± ", "markdown": " ± ", "latex": " $\\pm$ "}
LATEX_ESCAPES = {sign: "\\" + sign for sign in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "±": "$\\pm$",
}


def records(frame: "pd.DataFrame") -> list[dict[str, object]]:
    """The rows of a table as plain dictionaries, None where a value is missing."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return [{str(key): value for key, value in row.items()} for row in rows]


def cells(frame: "pd.DataFrame", style: Style, mark: Collection[str] = ()) -> list[dict[str, str]]:
    """The rows as text: numbers with four significant digits, mean and standard deviation in one cell.

    In the columns of `mark` whose metric has a better direction, the best value is marked if there is more than one row.
    """
    deviations = {f"{name} sd" for name in frame} & set(frame)
    best = _best(frame, mark) if len(frame) > 1 else {}
    rows = []
    for k, record in enumerate(records(frame)):
        row = {}
        for name, value in record.items():
            if name in deviations:
                continue
            text = _escaped(number(value), style)
            deviation = record.get(f"{name} sd")
            if isinstance(deviation, float) and value is not None:
                text += PLUS_MINUS[style] + f"{deviation:.2g}"
            row[_escaped(name, style)] = BEST[style].format(text) if k in best.get(name, ()) else text
        rows.append(row)
    return rows


def _best(frame: "pd.DataFrame", mark: Collection[str]) -> dict[str, list[int]]:
    """The rows with the best value, for each column of `mark` whose metric has a better direction."""
    import pandas as pd

    best = {}
    for name in frame:
        if name not in mark:
            continue
        known = definition(str(name))
        values = pd.to_numeric(frame[name], errors="coerce")
        if known and known.better and values.notna().sum() > 1 and values.nunique() > 1:
            extreme = values.min() if known.better == "lower" else values.max()
            best[str(name)] = [k for k, value in enumerate(values) if value == extreme]
    return best


def number_columns(frame: "pd.DataFrame") -> list[str]:
    """The columns that hold numbers, which are aligned right."""
    import pandas as pd

    return [str(name) for name in frame if pd.to_numeric(frame[name], errors="coerce").notna().any()]


def markdown(frame: "pd.DataFrame", mark: Collection[str] = ()) -> str:
    """A table in Markdown."""
    rows = cells(frame, "markdown", mark)
    right = set(number_columns(frame))
    head = list(rows[0]) if rows else [str(name) for name in frame]
    lines = [head, ["---:" if name in right else "---" for name in head], *(list(row.values()) for row in rows)]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def latex(frame: "pd.DataFrame", mark: Collection[str] = ()) -> str:
    """A table in LaTeX for the booktabs package."""
    import pandas as pd

    rows = cells(frame, "latex", mark)
    right = {_escaped(name, "latex") for name in number_columns(frame)}
    head = list(rows[0]) if rows else [_escaped(str(name), "latex") for name in frame]
    columns = "".join("r" if name in right else "l" for name in head)
    table = pd.DataFrame([list(row.values()) for row in rows], columns=head)
    return str(table.to_latex(index=False, escape=False, column_format=columns))


def csv(frame: "pd.DataFrame") -> str:
    """A table in CSV, with full precision and with standard deviations in columns of their own.

    Text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe.
    """
    return frame.rename(columns=_no_formula).map(_no_formula).to_csv(index=False)


def _no_formula(value: object) -> object:
    """A value that no spreadsheet evaluates: a formula becomes text, and a number stays a number."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _escaped(text: str, style: Style) -> str:
    text = visible(text)  # a line break in a name would start a new row
    return "".join(LATEX_ESCAPES.get(sign, sign) for sign in text) if style == "latex" else text
