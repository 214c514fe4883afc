"""Pages as a browser shows them; left out where there is no Chromium of the system, or no playwright."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.screenshots import browser, chromium, faults
from roots_compress.report.html import html
from roots_compress.tasks.registry import task_named
from tests.report.figures import full_run, run, speeds, stage

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        chromium() is None or find_spec("playwright") is None,
        reason="needs the system's Chromium and `pip install --group browser`; .ci/run installs both",
    ),
]


def test_a_table_of_every_metric_of_an_encoder_decoder_fits_a_desk_and_paper(tmp_path: Path) -> None:
    task = task_named("seq2seq_lm")
    figures = stage().metrics
    metrics = replace(
        figures,
        quality={each.name: 43.339 for each in task.metrics},
        timings={each.figure: speeds(29873.0, 37533.0) for each in task.workloads},
    )
    rows = [stage(index, kind, metrics=metrics) for index, kind in enumerate(("baseline", "quantize"))]
    page = tmp_path / "report.html"
    page.write_text(html(run(*rows, task=task.name)))
    with browser() as window:
        assert list(faults(window, page)) == []
        window.set_viewport_size({"width": 1280, "height": 900})
        window.goto(page.as_uri())
        assert window.evaluate("document.querySelector('.dense').offsetWidth") <= window.evaluate(
            "document.querySelector('.dense').parentElement.clientWidth"
        )


def test_a_browser_finds_no_fault_in_a_report_and_sorts_its_tables(tmp_path: Path) -> None:
    good, bad = tmp_path / "report.html", tmp_path / "bad.html"
    page = html(full_run())
    good.write_text(page)
    bad.write_text(
        page.replace("--soft: #55606b", "--soft: #aaaaaa").replace(
            "<main>", '<main><div style="width:2000px">wide</div>'
        )
    )
    with browser() as window:
        assert list(faults(window, good)) == []
        window.get_by_role("button", name="MB", exact=True).first.click()
        assert window.locator("tbody th").first.inner_text() == "03-quantize"
        found = " ".join(faults(window, bad, widths=[390]))
    assert "on paper: " in found
    assert "390 light: contrast 2." in found
    assert "wider than the window" in found
