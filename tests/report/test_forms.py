"""The forms of a report: table, Markdown, HTML, comparison."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from io import StringIO
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from roots_compress.report import compare_text
from roots_compress.report.compare import comparison
from roots_compress.report.html import html
from roots_compress.report.junit import Case, junit, suite
from roots_compress.report.markdown import markdown
from roots_compress.report.rows import rows_of
from roots_compress.report.spreadsheet import run_csv
from roots_compress.report.text import cells, headings, table, tables
from roots_compress.results import GateResult, RunMetrics
from roots_compress.tasks.base import Task
from roots_compress.tasks.registry import CAUSAL_LM, TASKS
from tests.report.figures import PROTOCOL, SEARCH, candidate, run, stage

RUN = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=21.0))
HOSTILE = '<script>alert(1)</script>[bold]|`x`"'


def rendered(item: object) -> str:
    console = Console(width=220, record=True, file=StringIO())
    console.print(item)
    return console.export_text()


def test_the_table_has_a_row_for_each_stage_with_its_figures() -> None:
    text = rendered(table(RUN))
    assert "baseline" in text
    assert "4.00x" in text
    assert "100 / 80" in text
    assert "24 windows of 512 tokens" in text


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_one_example_and_one_thread_are_said_in_the_singular(task: Task[Any]) -> None:
    caption = task.caption(replace(PROTOCOL, windows=1, threads=1))
    example, thread = re.findall(r"\b1 ([a-z]+)", caption)
    assert thread == "thread"
    assert not example.endswith("s")


def test_a_megabyte_is_a_million_bytes() -> None:
    for size, shown in ((12_345_678, "12.3"), (52_000, "0.052")):
        (row,) = rows_of(run(stage(size=size)))
        assert cells(row)[headings(CAUSAL_LM).index("MB")] == shown


def test_the_table_shows_markup_in_names_as_text() -> None:
    assert "[bold]" in rendered(table(replace(RUN, name=HOSTILE)))


def test_no_form_lets_a_name_drive_the_terminal() -> None:
    hostile = run(stage(name="a\x1b[2Jb"), name="\x1b]0;title\x07")
    compared = comparison([("\x1b[2J", hostile)], [{"stages": [], "model": "\x1b"}])
    rich_forms = (table(hostile), *compare_text.tables(compared))
    plain_forms = (markdown(hostile), compare_text.markdown(compared), run_csv(hostile))
    for text in (*plain_forms, compare_text.csv(compared), *map(rendered, rich_forms)):
        assert not {"\x1b", "\x07"} & set(text)
        assert "\N{REPLACEMENT CHARACTER}" in text


def test_markdown_escapes_what_would_be_markup() -> None:
    hostile = f"{HOSTILE}\n~~\x1b[31m"
    row = replace(stage(), name=hostile)
    gates = (GateResult(hostile, 1.0, 2.0, False),)
    search = replace(SEARCH, candidates=(candidate(hostile),), best=(hostile,), failed={hostile: hostile})
    text = markdown(
        replace(run(row), name=hostile, gates=gates, search=search, protocol=replace(PROTOCOL, text=hostile))
    )
    escaped = r"&lt;script&gt;alert(1)&lt;/script&gt;\[bold\]\|\`x\`"
    assert text.count(escaped) == text.count("alert(1)") == 11
    elements = {"<details>", "<summary>", "</summary>", "</details>"}
    assert set(re.findall("<[^>]*>?", text)) == elements
    assert "\x1b" not in text
    assert not [line for line in text.splitlines() if line.startswith("~")]


def test_perplexity_by_position_is_a_table_where_it_was_measured() -> None:
    parts = {"perplexity_from_1": 30.0, "perplexity_from_64": 12.5}
    whole = run(stage(), stage(1, "prune"))
    first = whole.stages[0]
    measured = replace(first.metrics, quality={**first.metrics.quality, **parts})
    shown = replace(whole, stages=(replace(first, metrics=measured), *whole.stages[1:]))
    assert "| baseline | 30.000 | 12.500 |" in markdown(shown)
    assert "| stage | 1 to 63 | 64 to" in markdown(shown)
    assert "<td>12.500</td>" in html(shown)
    assert "by position" not in markdown(whole) + html(whole)


def test_markdown_shows_gates() -> None:
    text = markdown(replace(RUN, gates=(GateResult("max_bytes", 1.0, 2.0, False),)))
    assert r"| max\_bytes | 1 | 2 |  | MISSED |" in text


def test_markdown_opens_with_what_decides_and_folds_the_rest() -> None:
    text = markdown(replace(RUN, gates=(GateResult("max_bytes", 1.0, None, False, note="is not there"),)))
    title, decision, *_ = [line for line in text.splitlines() if line]
    shown, folded = text.split("<details>")
    assert title == "# demo"
    assert "is not there" in decision
    assert "| stage | MB | smaller | perplexity | ratio | decode gain |" in shown
    assert "peak MB" in folded


def test_a_spreadsheet_has_a_row_a_stage_and_reads_no_name_as_a_formula() -> None:
    first, second = csv.DictReader(StringIO(run_csv(run(stage(name="=1+1"), stage(1, "quantize")))))
    assert (first["name"], second["kind"]) == ("'=1+1", "quantize")
    assert float(second["perplexity"]) == 20.0
    assert float(second["decode_tokens_per_second_512_low"]) == 72.0
    assert float(second["decode_speedup"]) == 1.0


JUNIT = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "skipped"}, {"testcase"}),
    "testcase": ({"name", "time", "classname"}, {"failure", "error", "skipped", "system-out"}),
    **dict.fromkeys(("failure", "error", "skipped"), ({"type", "message"}, set())),
    "system-out": (set(), set()),
}
"""What Jenkins' schema (junit-10.xsd), which other readers keep to, allows of attributes and of elements."""


def test_junit_has_a_case_for_each_stage_and_gate_and_says_what_was_missed() -> None:
    missed = GateResult("max_kl", 0.1, None, False, stage="quantize", note="was not \x1b\ufffe<measured>")
    kept = GateResult("max_bytes", 2e6, 1e6, True, stage="quantize")
    failed = [Case("prune", "prune", "error", "a.yaml:3: is wrong\nMend it."), Case("", "x", "skipped", "y")]
    for text, tags in (
        (junit(replace(RUN, gates=(missed, kept))), ["system-out", "system-out", "failure", "system-out"]),
        (suite("demo", failed), ["error", "skipped"]),
    ):
        suites = ElementTree.fromstring(text.encode())
        for each in suites.iter():
            attributes, elements = JUNIT[each.tag]
            assert {*each.keys()} <= attributes
            assert {inner.tag for inner in each} <= elements
            assert re.fullmatch(r"\d+(\.\d{1,3})?", each.get("time", "0"))
        assert [case[0].tag for case in suites[0]] == tags
        for each in (suites, suites[0]):
            assert each.get("tests") == str(len(tags))
            assert (each.get("failures"), each.get("errors")) == (
                str(tags.count("failure")),
                str(tags.count("error")),
            )
    assert suites[0][0][0].get("message") == "a.yaml:3: is wrong"
    (shown,) = ElementTree.fromstring(junit(replace(RUN, gates=(missed,))).encode()).iter("failure")
    assert shown.get("message") == shown.text == "max_kl was not \ufffd\ufffd<measured>, limit 0.1"


def test_junit_says_what_each_stage_changed_and_all_that_it_took() -> None:
    checked = replace(RUN, stages=tuple(replace(each, seconds=2.0, check_seconds=0.5) for each in RUN.stages))
    root = ElementTree.fromstring(junit(checked).encode())
    said = [each.text for each in root.iter("system-out")]
    assert said == [
        "baseline: the model that compression starts from",
        f"quantize: {rows_of(RUN)[1].verdict}",
    ]
    assert "4.00x smaller" in str(said[1])
    assert [each.get("time") for each in root.iter("testcase")] == ["2.500", "2.500"]
    assert root.get("time") == "5.000"


def test_a_search_is_shown_in_every_form() -> None:
    found = replace(RUN, search=SEARCH)
    assert len(tables(RUN)) == 1
    for text in (rendered(tables(found)[1]), markdown(found), html(found)):
        rows = [line for line in text.splitlines() if "prune &gt; int8" in line or "prune > int8" in line]
        assert "BEST" in rows[0]
        assert "front" in rows[0]
        assert "control" in next(line for line in text.splitlines() if "int8" in line and line != rows[0])
        assert "3 candidates were not tried within 8 minutes" in " ".join(text.split())
        assert "as it is" in text


def test_a_search_says_when_no_candidate_keeps_the_budgets_and_what_failed() -> None:
    missed = candidate("int8", keeps_budgets=False)
    search = replace(SEARCH, candidates=(missed,), best=("int8",), failed={"prune": HOSTILE + "\x1b[2J"})
    found = replace(RUN, search=search)
    for text in (rendered(tables(found)[1]), markdown(found), html(found)):
        assert "NO CANDIDATE KEEPS ALL BUDGETS" in " ".join(text.split())
        assert "prune failed" in " ".join(text.split())
    assert "\x1b" not in rendered(tables(found)[1]) + markdown(found)
    assert "alert(1)<" not in markdown(found) + html(found)


def test_metrics_survive_their_json_form() -> None:
    assert RunMetrics.from_json(RUN.to_json()) == RUN
    found = replace(RUN, search=SEARCH)
    assert RunMetrics.from_json(json.loads(json.dumps(found.to_json()))) == found
