"""The end of a run on the command line: its gates, and its output files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roots_compress.cli.display.output import tell
from roots_compress.cli.options import RUN
from roots_compress.errors import RootsError

if TYPE_CHECKING:
    from roots_compress.results import RunMetrics

JUnitOption = Annotated[
    Path | None,
    typer.Option(
        "--junit",
        metavar="FILE",
        help="Write stages and gates as JUnit XML, one test case each.",
        rich_help_panel=RUN,
    ),
]


def check_output(path: Path | None) -> None:
    """Refuse an output file that cannot be written, before any work.

    Raises:
        InputError: it cannot.
    """
    if path is not None:
        from roots_compress.run.outputs import check_output_file

        check_output_file(path)


@contextmanager
def telling_failure(junit: Path | None, run: Path) -> Iterator[None]:
    """Write a run's state as JUnit XML if it fails or is stopped inside the block.

    Args:
        junit: the file, if any; an earlier run's is removed.
    """
    if junit is not None:
        junit.unlink(missing_ok=True)
    try:
        yield
    except BaseException:  # an interruption too
        if junit is not None:
            from roots_compress.pipeline.unfinished import unfinished_junit
            from roots_compress.run.outputs import write_output

            with suppress(RootsError, OSError):  # the failure itself is reported
                if (text := unfinished_junit(run)) is not None:
                    write_output(junit, text)
        raise


def tell_where(metrics: RunMetrics, run: Path) -> None:
    """Print the paths of a run's result (its last stage's folder) and its report."""
    tell(f"Result: {run / Path(metrics.stages[-1].onnx).parts[0]}")
    tell(f"Report: {run / 'report.html'}")


def conclude(
    metrics: RunMetrics, *, where: Path, junit: Path | None = None, remedy: str | None = None
) -> None:
    """Print the result of each gate, and end with exit code 3 if one was missed.

    Args:
        metrics: of the finished run.
        where: the recipe that was carried out, or the run's folder.
        junit: the file for JUnit XML, if any.
        remedy: what to do about a missed gate; None: change the recipe.

    Raises:
        GateMissedError: a gate was missed.
    """
    from roots_compress.report.gates import CHANGE, require
    from roots_compress.report.text import gate_line

    if junit is not None:
        from roots_compress.report.junit import junit as xml
        from roots_compress.run.outputs import write_output

        write_output(junit, xml(metrics))
    for gate in metrics.gates:
        if gate.passed:
            tell(gate_line(gate))
    require(metrics.gates, where=str(where), remedy=remedy or CHANGE)
