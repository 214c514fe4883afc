"""A run's gates as JUnit XML, which CI services read: one test case a gate."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from roots_compress.errors import printable
from roots_compress.results import RunMetrics

_NOT_XML = re.compile("[\ufffe\uffff]")


def junit(run: RunMetrics) -> str:
    """Return one suite of test cases, whose failures say in a line what was found and what was the limit."""
    counts = {
        "name": _plain(run.name),
        "tests": str(len(run.gates)),
        "failures": str(sum(not gate.passed for gate in run.gates)),
        "errors": "0",
        "time": f"{sum(row.seconds for row in run.stages):.3f}",
    }
    root = ElementTree.Element("testsuites", counts)
    suite = ElementTree.SubElement(root, "testsuite", {**counts, "skipped": "0"})
    for gate in run.gates:
        line = _plain(gate.line)
        names = {"classname": _plain(f"{run.name}.{gate.stage}".rstrip(".")), "name": _plain(gate.gate)}
        case = ElementTree.SubElement(suite, "testcase", {**names, "time": "0"})
        if gate.passed:
            ElementTree.SubElement(case, "system-out").text = line
        else:
            ElementTree.SubElement(case, "failure", {"message": line, "type": "gate"}).text = line
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _plain(text: str) -> str:
    """Return a text without the characters that XML cannot hold."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", printable(text))
