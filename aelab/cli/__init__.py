"""The command line: verbs, options, exit codes. The only typer; heavy imports wait until a verb needs them."""

import errno
import logging
import os
import sys
import time
import traceback
import warnings
from typing import Annotated, Any, NoReturn

import typer

from aelab import recipe_files
from aelab.cli import (
    compare,
    compare_latent,
    data,
    eval,
    interpolate,
    lecture,
    recipes,
    resume,
    runs,
    sample,
    show,
    sweep,
    sync,
    train,
    ui,
)
from aelab.cli.help import Group
from aelab.cli.options import EXIT_CODES, console_for
from aelab.errors import UserError, no_memory, out_of_memory, redacted, visible
from aelab.recipe_files import RecipeError, recipe_error

DIVIDED = ("train", "resume")  # what several processes of torchrun do together
SIGNALLED = (130, 143)  # exit codes of a command that a signal ended

ORDER = (
    "train",
    "resume",
    "sweep",
    "compare-latent",
    "eval",
    "sample",
    "interpolate",
    "show",
    "compare",
    "lecture",
    "runs",
    "recipes",
    "data",
    "ui",
    "sync",
)


class Verbs(Group):
    """The verbs in the order in which they are used; by default typer lists groups after commands."""

    def refuse(self, ctx: Any, name: str) -> NoReturn:
        if name in recipe_files.available():
            raise UserError(f"{name} is a recipe, not a command.", f"Train it: aelab train {name}", code=2)
        super().refuse(ctx, name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        _, size = _place()
        if size > 1 and args[0] not in DIVIDED:
            raise UserError(
                f"torchrun has started {size} processes; they can share a training, and no other command.",
                "Use it with aelab train or aelab resume.",
                code=2,
            )
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupted:  # of which typer would keep the exit code alone
            raise UserError(str(interrupted), code=130) from None

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    cls=Verbs,
    help="Train, evaluate, sample, interpolate and compare autoencoders and generative models. Every run is tracked in MLflow.",
    epilog=f"`aelab COMMAND --help` explains a command. A first run: `aelab train vae`, then `aelab ui`.\n\n{EXIT_CODES}",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    subcommand_metavar="COMMAND [OPTIONS]",
    pretty_exceptions_enable=False,
)


for verb in (
    train,
    resume,
    sweep,
    compare_latent,
    eval,
    sample,
    interpolate,
    show,
    compare,
    lecture,
    recipes,
    data,
    ui,
    sync,
):
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
    rank, _ = _place()
    if rank:  # of the processes of torchrun only the first prints, whatever library the text comes from
        for stream in (sys.stdout, sys.stderr):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # our own go through the console
    try:
        code = app(prog_name="aelab", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code if isinstance(code, int) else 0)
    except UserError as problem:
        if rank:
            time.sleep(1)  # torchrun ends all as soon as one has failed, and the first has to say why
        if isinstance(problem, RecipeError):
            _show_fault(problem)
        else:
            say = console_for().interrupted if problem.code in SIGNALLED else console_for().error
            say(str(problem))
        sys.exit(problem.code)
    except SystemExit as ended:
        if recipe_error(ended):  # a recipe must not end a command as if all was well
            _fault(ended)
        raise
    except KeyboardInterrupt:
        console_for().interrupted("")
        sys.exit(130)
    except typer.Abort:  # at a question, behind which the cursor still stands
        sys.stderr.write("\n")
        console_for().interrupted("")
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


def _place() -> tuple[int, int]:
    """Which process of torchrun this is, and of how many; 0 and 1 without torchrun."""
    given = dict(os.environ) if "TORCHELASTIC_RUN_ID" in os.environ else {}
    return int(given.get("RANK", "0")), int(given.get("WORLD_SIZE", "1"))


def _fault(error: BaseException) -> NoReturn:
    """Exits with what went wrong: memory ran out, a recipe's code is at fault, or, with its traceback, a bug in aelab."""
    fault = no_memory() if out_of_memory(error) else recipe_error(error)
    if _place()[0]:
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)  # into the report of torchrun
    if isinstance(fault, RecipeError):
        _show_fault(fault)
    else:
        if fault is None or _is_verbose():
            _print_traceback(error)
        if fault:
            console_for().error(str(fault))
    sys.exit(1)


def _show_fault(fault: RecipeError) -> None:
    """Prints what is wrong with a recipe; with --verbose the traceback of its error before it."""
    cause, verbose = fault.__cause__, _is_verbose()
    if cause and verbose:
        _print_traceback(cause)
    cut = cause is not None and "\n" in str(cause).strip()
    console_for().error(str(fault) + "\nThe whole message: --verbose" * (cut and not verbose))


def _is_verbose() -> bool:
    """Whether details were asked for; a recipe that is executed to learn its options may fail before they are parsed."""
    return logging.getLogger("aelab").level == logging.DEBUG or bool({"-v", "--verbose"} & {*sys.argv})


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
