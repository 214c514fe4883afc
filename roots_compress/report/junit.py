"""A run's stages and gates as JUnit XML, which CI services read: one test case each."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from xml.etree import ElementTree

from roots_compress.errors import printable
from roots_compress.report.rows import rows_of
from roots_compress.results import GateResult, RunMetrics, StageResult

_NOT_XML = re.compile("[\ufffe\uffff]")


@dataclass(frozen=True)
class Case:
    """A test case: a stage, or a gate."""

    stage: str
    """The row that it is about; empty for a gate of no row."""
    name: str
    outcome: Literal["passed", "failure", "error", "skipped"]
    """`failure`: a gate was missed. `error`: a stage failed."""
    said: str
    """What was found; its first line is the message."""
    seconds: float = 0.0

    @classmethod
    def of_stage(cls, row: StageResult, found: str = "finished") -> Case:
        """Return the case of a finished stage, of which so much was found."""
        return cls(row.name, row.name, "passed", f"{row.kind}: {found}", row.whole_seconds)

    @classmethod
    def of_gate(cls, gate: GateResult) -> Case:
        """Return the case of a gate that was judged."""
        return cls(gate.stage, gate.gate, "passed" if gate.passed else "failure", gate.line)


def junit(run: RunMetrics) -> str:
    """Return the suite of a finished run: its stages with what they changed, its gates with their limits."""
    stages = (Case.of_stage(row.stage, row.verdict) for row in rows_of(run))
    return suite(run.name, [*stages, *map(Case.of_gate, run.gates)])


def suite(run: str, cases: Iterable[Case]) -> str:
    """Return the cases of a run, which is named, as one suite."""
    cases = tuple(cases)
    outcomes = Counter(case.outcome for case in cases)
    counts = {
        "name": _plain(run),
        "tests": str(len(cases)),
        "failures": str(outcomes["failure"]),
        "errors": str(outcomes["error"]),
        "time": f"{sum(case.seconds for case in cases):.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    inner = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": str(outcomes["skipped"])})
    for case in cases:
        names = {"classname": _plain(f"{run}.{case.stage}".rstrip(".")), "name": _plain(case.name)}
        element = ElementTree.SubElement(inner, "testcase", {**names, "time": f"{case.seconds:.3f}"})
        said = _plain(case.said)
        if case.outcome == "passed":
            ElementTree.SubElement(element, "system-out").text = said
            continue
        kind = "stage" if case.name == case.stage else "gate"
        message = {"message": said.partition("\n")[0], "type": kind}
        ElementTree.SubElement(element, case.outcome, message).text = said
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _plain(text: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", printable(text))
