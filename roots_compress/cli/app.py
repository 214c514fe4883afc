"""The `roots-compress` command: its verbs, and how a failure ends the program."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from roots_compress import __version__
from roots_compress.cli.deferred import Deferred
from roots_compress.cli.display.console import warn, write
from roots_compress.cli.display.output import Output, opened
from roots_compress.cli.display.streams import run_on_streams
from roots_compress.cli.examples import EXAMPLES, epilog
from roots_compress.cli.help import HelpfulGroup, Verb
from roots_compress.cli.verbs import artifacts, bench, data, generation, recipes, reports, stages, start
from roots_compress.errors import RootsError, StageError
from roots_compress.io.temporary import missing_folder
from roots_compress.system.background import end_at_second_signal, left_behind
from roots_compress.system.launched import Launched, launched
from roots_compress.system.memory import memory_errors
from roots_compress.system.threads import bound_libraries
from roots_compress.training.interrupts import ENDINGS, end_at_once

ABORTED = 130
"""Typer's exit code of an interruption."""
EPILOG = "Start with: roots-compress compress CKPT --max-mb 100 --max-loss 5%"


WIDTH = 110
"""Columns of help, where the terminal has them."""


class Interrupted(KeyboardInterrupt):
    """A signal to end the program: it saves its state and exits with the signal's code."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.exit_code = 128 + number


class RootsGroup(HelpfulGroup):
    """The verbs; turns the project's own errors and interruptions into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run the given verb."""
        gc.enable()  # `__main__` starts without it
        with opened([*getattr(ctx, "_protected_args", ()), *ctx.args]) as output:
            return self._invoke(ctx, output)

    def _invoke(self, ctx: Any, output: Output) -> Any:
        try:
            with memory_errors():
                return super().invoke(ctx)
        except RootsError as error:
            output.fail(error)
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            output.fail(missing_folder(error) or _refusal(error))
            raise typer.Exit(StageError.exit_code) from None
        except Interrupted as interruption:
            self._end_interrupted(ctx, output, interruption)
        except Exception as error:
            # A library that is interrupted, for example while it is imported, may raise its own exception.
            if (before := _interruption_before(error)) is None:
                raise
            self._end_interrupted(ctx, output, before)

    def _end_interrupted(self, ctx: Any, output: Output, interruption: Interrupted) -> NoReturn:
        """Say what is kept, and exit with the signal's code."""
        from roots_compress.events import Error

        output.end_display(failed=True)
        message = f"interrupted: {WHAT_IS_KEPT.get(ctx.invoked_subcommand, NOTHING_KEPT)}"
        warn(f"\n{message}")
        output.report(Error(message, None, None, interruption.exit_code))
        raise typer.Exit(interruption.exit_code) from None


def _interruption_before(error: BaseException | None) -> Interrupted | None:
    """Return the interruption that caused an error; None if there was none."""
    while error is not None and not isinstance(error, Interrupted):
        error = error.__cause__ or error.__context__
    return error


def _refusal(error: OSError) -> StageError:
    """Return the message for an otherwise unexplained system error."""
    if error.filename is None:
        try:
            Path.cwd()
        except OSError as gone:  # transformers needs it when it is imported.
            return StageError(
                f"the current folder cannot be found: {gone.strerror}", remedy="Change to one that exists."
            )
    return StageError(
        f"the system refused it: {error.strerror or error}",
        where=os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else None,
        remedy="Check the path, its permissions and the room on its disk.",
    )


app = typer.Typer(
    cls=RootsGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # Help by rich takes twice as long.
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    epilog=EPILOG,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        write(f"{__version__}\n")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Distil, prune and quantize a trained language model into a small ONNX graph."""


VERBS: dict[str, dict[str, Callable[..., None] | Deferred]] = {
    "Start": {"compress": start.COMPRESS, "init": start.INIT},
    "Recipes": {
        "run": recipes.run,
        "plan": recipes.plan,
        "validate": recipes.validate,
        "schema": recipes.schema,
    },
    "Stages": {**stages.VERBS},
    "Models and graphs": {
        "import": artifacts.import_,
        "export": artifacts.export,
        "eval": artifacts.EVALUATE,
        "bench": bench.bench,
        "generate": generation.generate,
    },
    "Results": {
        "report": reports.report,
        "compare": reports.compare,
        "verify": reports.verify,
        "doctor": reports.doctor,
    },
}
"""The verbs under the headings of `--help`."""

for panel, verbs in VERBS.items():
    for name, verb in verbs.items():
        if isinstance(verb, Deferred):
            verb.add_to(app, name, panel)
        else:
            app.command(name, cls=Verb, epilog=epilog(EXAMPLES[name]), rich_help_panel=panel)(verb)


app.add_typer(data.app, name="data", rich_help_panel="Data")

NOTHING_KEPT = "nothing is kept; the same command begins again"
WHAT_IS_KEPT = {
    **dict.fromkeys(
        ("compress", "run", *VERBS["Stages"]),
        "finished stages are kept; the same command goes on from there",
    ),
    "data": "what was written is kept; the same command goes on from there",
}
"""What remains after an interruption of a verb, if anything."""


def main() -> None:
    """Run the command line, its signals and streams set up."""
    received: list[int] = []

    def interrupt(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for other in ENDINGS:
            if signal.getsignal(other) is interrupt:
                signal.signal(other, end_at_once)
        raise Interrupted(number)

    try:
        for number in ENDINGS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` leaves SIGHUP
                signal.signal(number, interrupt)
        bound_libraries()
        end_at_second_signal(ENDINGS)
        here = launched()
        run_on_streams(app if here is None else partial(_one_of_several, here))
    except (SystemExit, Interrupted) as ending:
        code = ending.code if isinstance(ending, SystemExit) else ending.exit_code
        if received and code == ABORTED:  # Typer's exception for a signal before or after a verb.
            code = 128 + received[0]
        if left_behind():
            os._exit(code if isinstance(code, int) else int(code is not None))
        raise SystemExit(code) from None
    finally:
        # Python still shuts down modules and threads, where an exception could only be printed.
        for number in ENDINGS:
            if signal.getsignal(number) is interrupt:
                signal.signal(number, end_at_once)


def _one_of_several(here: Launched) -> None:
    """Run the verb in process 0 of a launcher's processes; the others serve it until it ends."""
    from roots_compress.training.parallel.launch import end_followers, follow

    if here.rank:
        with suppress(Interrupted):  # process 0 tells
            follow()
        return
    try:
        app()
    finally:
        end_followers()
