"""The command line: verbs, options, exit codes. The only typer; heavy imports wait until a verb needs them."""

import errno
import logging
import os
import re
import sys
import traceback
import warnings
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from aelab.cli import (
    compare,
    compare_latent,
    data,
    eval,
    interpolate,
    recipes,
    resume,
    runs,
    sample,
    sync,
    train,
    ui,
)
from aelab.cli.options import EXIT_CODES, console_for
from aelab.errors import UserError, no_memory, out_of_memory, redacted, visible
from aelab.recipe_files import RecipeError, recipe_error

ORDER = (
    "train",
    "resume",
    "compare-latent",
    "eval",
    "sample",
    "interpolate",
    "compare",
    "runs",
    "recipes",
    "data",
    "ui",
    "sync",
)


class Verbs(TyperGroup):
    """The verbs in the order in which they are used; by default typer lists groups after commands."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.rich_markup_mode = None  # plain text, as importing rich takes longer than all the rest of this page
        super().format_help(ctx, formatter)

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=Verbs,
    help="Train, evaluate, sample, interpolate and compare autoencoders and generative models. Every run is tracked in MLflow.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


for verb in (train, resume, compare_latent, eval, sample, interpolate, compare, recipes, data, ui, sync):
    app.add_typer(verb.verbs)
app.add_typer(runs.group, name="runs")


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        import aelab

        typer.echo(f"aelab {aelab.__version__}")
        raise typer.Exit


def main() -> NoReturn:
    """Runs the command line, and exits with its code. A user's mistake never leads to a traceback."""
    _open_standard_streams()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # our own go through the console
    try:
        code = app(prog_name="aelab", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as problem:
        if isinstance(problem, RecipeError) and problem.__cause__ and _is_verbose():
            _print_traceback(problem.__cause__)
        console_for().error(str(problem))
        sys.exit(problem.code)
    except TyperException as error:
        if message := error.format_message():
            context = getattr(error, "ctx", None)
            help_line = f"\nTry: {context.command_path} --help" if context else ""
            message = re.sub(r"(\d{20})\d{20,}", r"\1...", message.strip())
            console_for().error(message.replace("Value error, ", "") + help_line)  # pydantic's words
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        console_for().error("interrupted.")
        sys.exit(130)
    except BrokenPipeError:  # `aelab runs | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename:
            _fault(error)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # drops what is still in the buffer
        console_for().error(f"the output could not be written: {error.strerror}.")
        sys.exit(1)
    except Exception as error:  # noqa: BLE001
        _fault(error)


def _fault(error: Exception) -> NoReturn:
    """Exits with what went wrong: memory ran out, a recipe's code is at fault, or, with its traceback, a bug in aelab."""
    fault = no_memory() if out_of_memory(error) else recipe_error(error)
    if fault is None or _is_verbose():
        _print_traceback(error)
    if fault:
        console_for().error(str(fault))
    sys.exit(1)


def _is_verbose() -> bool:
    return logging.getLogger("aelab").level == logging.DEBUG


def _print_traceback(error: BaseException) -> None:
    """Prints a traceback to stderr, without passwords and without characters that a terminal acts on."""
    lines = redacted("".join(traceback.format_exception(error))).rstrip("\n").split("\n")
    sys.stderr.write("\n".join(map(visible, lines)) + "\n")


def _open_standard_streams() -> None:
    """Opens standard streams that the caller closed (`>&-`), as the next file would get their number, and their output."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+" if number else "r"))  # noqa: SIM115, PTH123  # open until the process ends
