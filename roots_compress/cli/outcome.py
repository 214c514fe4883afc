"""What a run ends with on the command line: its gates, and the files that were asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from roots_compress.cli.output import tell

if TYPE_CHECKING:
    from roots_compress.results import RunMetrics

JUnitOption = Annotated[
    Path | None,
    typer.Option("--junit", metavar="FILE", help="Write the gates as JUnit XML, one test case each."),
]


def check_output(path: Path | None) -> None:
    """Refuse a file that was asked for and cannot be written, before any work.

    Raises:
        InputError: it cannot.
    """
    if path is not None:
        from roots_compress.run.outputs import check_output_file

        check_output_file(path)


def discard(junit: Path | None) -> None:
    """Remove the gates of an earlier run, which a run that fails would otherwise leave there."""
    if junit is not None:
        junit.unlink(missing_ok=True)


def conclude(metrics: RunMetrics, *, where: Path, junit: Path | None = None) -> None:
    """Tell what came of each gate, and end with exit code 3 where one was missed.

    Args:
        metrics: of the finished run.
        where: what was carried out: the recipe, or the run's folder.
        junit: the file for JUnit XML, if one was asked for.

    Raises:
        GateMissedError: a gate was missed.
    """
    from roots_compress.report.gates import require
    from roots_compress.report.text import gate_line

    if junit is not None:
        from roots_compress.report.junit import junit as xml
        from roots_compress.run.outputs import write_output

        write_output(junit, xml(metrics))
    for gate in metrics.gates:
        if gate.passed:
            tell(gate_line(gate))
    require(metrics.gates, where=str(where))
