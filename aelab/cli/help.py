"""How the command line explains itself: `--help` of every verb in one style, and what is said to an unknown verb or option.

The help is plain text as wide as the terminal. It imports no rich, which takes longer to import than all the rest. Of typer
it uses two classes and, of their parameters, the names and values that the verbs' signatures gave them.
"""

import inspect
import os
import re
import reprlib
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any, Literal, NoReturn, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from aelab import recipe_files
from aelab.errors import UserError, did_you_mean, reason, similar, visible

WIDEST, NARROWEST = 100, 40  # columns of a page
LONGEST_TERM = 32  # columns; the descriptions are aligned beside terms up to this length
BESIDE = 40  # columns that a description needs beside its term; if there are fewer, it stands below
TECHNICAL = 10_000  # an upper bound from here on only keeps a computation possible, and is not shown


class Verb(TyperCommand):
    """A verb, with its help in this style."""

    def get_help(self, ctx: Any) -> str:
        return _page(self, ctx, *_terminal())

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        with _explained(self, ctx):
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    """A group of verbs, with its help in this style."""

    heading = "Commands"

    def get_help(self, ctx: Any) -> str:
        return _page(self, ctx, *_terminal())

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Without any word behind a group that needs one, its help is what to type; the exit code is that of wrong usage."""
        if not args and self.no_args_is_help and not ctx.resilient_parsing:
            typer.echo(self.get_help(ctx), err=True)
            raise typer.Exit(2)
        with _explained(self, ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if not args[0].startswith("-") and not ctx.resilient_parsing and self.get_command(ctx, args[0]) is None:
            self.refuse(ctx, args[0])
        return super().resolve_command(ctx, args)

    def refuse(self, ctx: Any, name: str) -> NoReturn:
        """Raises UserError for a verb that there is not."""
        close = similar(name, names := self.list_commands(ctx))
        raise UserError(
            f"there is no command '{name}'." + did_you_mean(close),
            f"Try: {ctx.command_path} --help" if close else f"Commands: {', '.join(names)}",
            code=2,
        )


def pages(columns: int) -> Iterator[tuple[str, str]]:
    """Each verb, and each recipe of `train`, with its help in so many columns: ("aelab runs show", ...)."""
    from aelab.cli import app

    def below(command: Any, context: Any) -> Iterator[tuple[str, str]]:
        yield context.command_path, _page(command, context, min(columns, WIDEST), bold=False)
        for name in command.list_commands(context) if isinstance(command, Group) else ():
            _, inner, _ = command.resolve_command(context, [name])
            yield from below(inner, inner.make_context(name, [], parent=context, resilient_parsing=True))

    root = typer.main.get_command(app)
    yield from below(root, root.make_context("aelab", [], resilient_parsing=True))


@contextmanager
def _explained(command: Any, context: Any) -> Iterator[None]:
    """Raises UserError, in our words, where typer cannot understand a command line."""
    try:
        yield
    except TyperException as error:
        what, *usage = _mistake(command, context, error)
        what = re.sub(r"(\d{20})\d{20,}", r"\1...", what)
        raise UserError(what, *usage, f"Try: {context.command_path} --help", code=2) from error


def _mistake(command: Any, context: Any, error: TyperException) -> list[str]:
    """What is wrong with a command line, and how the verb is used if an option alone does not tell."""
    option, parameter = getattr(error, "option_name", ""), getattr(error, "param", None)
    if option and hasattr(error, "possibilities"):
        return [_unknown(command, context, option)]
    for each in command.get_params(context):
        if option in (*each.opts, *each.secondary_opts):
            return [f"{option} takes no value." if each.is_flag else f"{option} needs a value: {_term(command, each)}."]
    if parameter and error.message:
        name = _term(command, parameter) if _is_argument(parameter) else " / ".join(parameter.opts)
        return [f"{name}: {_reason(command, parameter, error)}"]
    message = error.message.rstrip(".")
    what = f"{_term(command, parameter)} is missing." if parameter else f"{message[:1].lower()}{message[1:]}."
    return [what, f"Usage: {_usage(command, context).splitlines()[0]}"]


def _unknown(command: Any, context: Any, option: str) -> str:
    """What is said to an option that a verb does not have: which it may be, or what else has it."""
    own = [name.lstrip("-") for each in command.get_params(context) for name in (*each.opts, *each.secondary_opts)]
    close = [f"--{name}" for name in similar(option.lstrip("-"), own) if len(name) > 1]
    what = f"{context.command_path} has no option {option}"
    name = option.lstrip("-").replace("-", "_")
    if close:
        return f"{what}.{did_you_mean(close)}"
    if isinstance(command, Group):
        return f"{what}. Options stand behind the {command.heading.lower().removesuffix('s')}."
    owners = [recipe for recipe, file in recipe_files.available().items() if name in _option_names(file)]
    if owners and "set" in own:
        return f"{what}; it is an option of {', '.join(owners)}: give it as --set {name}=VALUE."
    if owners and "trials" in own:
        return f"{what}: write {name}=VALUE, as for the options that vary."
    return f"{what}; it is an option of {', '.join(owners)}." if owners else f"{what}."


def _option_names(file: "recipe_files.RecipeFile") -> list[str]:
    """The options of a recipe, if they can be read without executing it."""
    signature = recipe_files.read(file)
    return [option.name for option in signature.options] if signature else []


def _reason(command: Any, parameter: Any, error: TyperException) -> str:
    """Why a value is refused: pydantic's reason with the value in it, or the choices that there are."""
    from pydantic import ValidationError

    cause, choices = error.__cause__, _type(command, parameter).split("|")
    if not isinstance(cause, ValidationError):
        return f"{error.message.rstrip('.')}."
    value = cause.errors()[0]["input"]
    if len(choices) > 1 and isinstance(value, str):
        return f"{reprlib.repr(value):.60} is not one of {', '.join(choices)}.{did_you_mean(similar(value, choices))}"
    return f"{reason(cause)}."


def _terminal() -> tuple[int, bool]:
    """The columns of a page on this terminal, and whether its headings are bold."""
    bold = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns)), bold


def _page(command: Any, context: Any, columns: int, bold: bool) -> str:
    """The help of a verb or a group: usage, what it does, its verbs, arguments and options, and its last words."""
    usages = zip(["Usage: ", " " * 7], _usage(command, context).split("\n"), strict=False)
    parts = ["\n".join(_wrapped(usage, columns, first=first, indent=" " * 7) for first, usage in usages)]
    parts += _paragraphs(command.help or "", columns)
    sections = _sections(command, context)
    terms = [term for rows in sections.values() for term, _ in rows]
    if isinstance(command, Group):
        inner = {name: command.get_command(context, name) for name in command.list_commands(context)}
        verbs = [(name, _summary(each.help)) for name, each in inner.items() if each and not each.hidden]
        parts.append(_section(command.heading, verbs, columns, bold, [name for name, _ in verbs]))
    parts += [_section(heading, rows, columns, bold, terms) for heading, rows in sections.items()]
    parts += _paragraphs(command.epilog or "", columns)
    return "\n\n".join(part for part in parts if part)


def _usage(command: Any, context: Any) -> str:
    """What to type: the verb, its arguments, and [OPTIONS]."""
    words = [context.command_path]
    if isinstance(command, Group):
        return f"{context.command_path} {command.subcommand_metavar}"
    for parameter in command.get_params(context):
        if parameter.param_type_name == "argument":
            name = _term(command, parameter)
            words.append(name if parameter.required or name.startswith("[") else f"[{name}]")
    return " ".join([*words, "[OPTIONS]"])


def _sections(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """The arguments and options by section: how each is typed, and what it does.

    A section with a single option is none: the option is listed under Options.
    """
    shown = [each for each in command.get_params(context) if not each.hidden]
    arguments = [each for each in shown if _is_argument(each)]
    options = [each for each in shown if not _is_argument(each)]
    headings = [each.rich_help_panel or "Options" for each in options]
    sections: dict[str, list[tuple[str, str]]] = {
        "Arguments": [(_term(command, each), _description(each)) for each in arguments]
    }
    for heading, option in zip(headings, options, strict=True):
        rows = sections.setdefault("Options" if headings.count(heading) == 1 else heading, [])
        rows.append((_term(command, option), _description(option)))
    return sections


def _is_argument(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "argument")


def _term(command: Any, parameter: Any) -> str:
    """How an argument or option is typed, with its type: `--latent-dim INTEGER >=1`. A flag has no type.

    Of a flag only the spelling that changes something is shown, unless it is on by default.
    """
    if _is_argument(parameter):
        return str(parameter.metavar or parameter.name.upper())
    names = ", ".join(sorted(parameter.opts, key=len))
    if parameter.is_flag:
        return " / ".join([names, *(parameter.secondary_opts if parameter.default else ())])
    return f"{names} {parameter.metavar or _type(command, parameter)}"


def _type(command: Any, parameter: Any) -> str:
    """The type of an option, by the signature of its verb."""
    hint, *notes = get_args(inspect.signature(command.callback).parameters[parameter.name].annotation)
    kinds = [each for each in get_args(hint) if each is not type(None)]
    if get_origin(hint) is not Literal and kinds:  # int | None, list[int]
        hint = kinds[0]
    bounds = [(sign, each) for sign, each in ((">=", notes[0].min), ("<=", notes[0].max)) if each is not None]
    return recipe_files.type_text(hint, [each for each in bounds if each[1] < TECHNICAL])


def _description(parameter: Any) -> str:
    """What an argument or option does, and its default."""
    default = parameter.default
    if isinstance(parameter.show_default, str):
        default = parameter.show_default
    elif isinstance(default, bool) or default in (None, "", [], ()):
        default = (parameter.opts[0] if parameter.secondary_opts else "") if default is True else ""
    elif isinstance(default, float):
        default = f"{default:g}"
    return " ".join(filter(None, [parameter.help, f"(default: {default})" if default != "" else ""]))


def _summary(text: str | None) -> str:
    """The first paragraph of a help text, in one line."""
    return " ".join((text or "").strip().partition("\n\n")[0].split())


def _section(heading: str, rows: Sequence[tuple[str, str]], columns: int, bold: bool, aligned: Sequence[str]) -> str:
    """A heading, with terms and descriptions: beside each other, aligned for all terms in `aligned`, else below each other."""
    if not rows:
        return ""
    left = max((len(term) for term in aligned if len(term) <= LONGEST_TERM), default=0)
    beside = columns - left - 4 >= BESIDE
    indent = " " * (left + 4 if beside else 6)
    lines = [f"\033[1m{visible(heading)}:\033[0m" if bold else f"{visible(heading)}:"]
    for term, text in rows:
        described = _wrapped(text, columns, first=indent, indent=indent)
        if beside and len(visible(term)) <= left:
            lines.append(f"  {visible(term):{left}}  {described.lstrip()}".rstrip())
        else:
            lines += [_wrapped(term, columns, first="  ", indent=" " * 8), *filter(None, [described])]
    return "\n".join(lines)


def _wrapped(text: str, columns: int, first: str = "", indent: str = "") -> str:
    """One paragraph, wrapped. Commands in `...` and short defaults stay in one line; only a word that is longer is broken."""
    text = " ".join(visible(word) for word in text.split())
    text = re.sub(r"`[^`]{1,50}`|\(default: [^)]{1,24}\)", lambda found: found[0].replace(" ", "\0"), text)
    lines = textwrap.fill(text, columns, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return lines.replace("\0", " ")


def _paragraphs(text: str, columns: int) -> Iterator[str]:
    """The paragraphs of a docstring, wrapped; lines that are indented, such as equations, stay as they are.

    So they do if nothing behind them shows how far the docstring itself is indented.
    """
    cleaned = inspect.cleandoc(text.expandtabs())
    structured = any(line.startswith(" ") for line in cleaned.splitlines())
    for block in re.split(r"\n\s*\n", cleaned if structured else text.expandtabs().strip("\n").rstrip()):
        lines = [visible(line.rstrip()) for line in block.splitlines()]
        parts: list[str] = []
        for indented, some in groupby(lines, lambda line: line.startswith(" ")):
            taken = list(some)
            parts += _folded(taken, columns) if indented else [_wrapped(" ".join(taken), columns)]
        yield "\n".join(parts)


def _folded(lines: Sequence[str], columns: int) -> Iterator[str]:
    """Indented lines as they are, if they fit. Of longer ones a list item is wrapped, and others continue further in."""
    if all(len(line) <= columns for line in lines):
        yield from lines
        return
    for item in re.findall(r"^ *- .*(?:\n +[^ -].*)*|^.+", "\n".join(lines), re.MULTILINE):
        indent = " " * min(len(item) - len(item.lstrip()), columns // 3)
        if item.lstrip().startswith("- "):
            yield _wrapped(item, columns, first=indent, indent=indent + "  ")
            continue
        line = indent + item.lstrip() if len(item) > columns else item
        while len(line) > columns:
            at = _break(line, columns)
            yield line[:at].rstrip()
            line = indent + " " * 4 + line[at:].lstrip()
        yield line


def _break(line: str, columns: int) -> int:
    """Where to break a line that is too long: at a gap, else after a comma, before an operator, or at a space."""
    first = max(columns // 4, len(line) - len(line.lstrip()))
    for place in (r" {3,}(?![=:~ ])", r"(?<=,) {2,}", r" (?=[-+=] )", " "):
        starts = [found.start() for found in re.finditer(place, line)]
        if fitting := [start for start in starts if first < start <= columns]:
            balanced = [start for start in fitting if line[:start].count("(") == line[:start].count(")")]
            return (balanced or fitting)[-1]
    return columns
