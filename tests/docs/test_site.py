"""The site of the documentation in a browser, opened from disk; left out where it is not built."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.screenshots import browser
from tests.report.test_browser import pytestmark as needs_a_browser

INDEX = Path(__file__).parents[2] / "site" / "index.html"
pytestmark = [*needs_a_browser, pytest.mark.skipif(not INDEX.is_file(), reason="`make docs` builds the site")]


def test_search_finds_pages_and_nothing_is_read_but_files() -> None:
    with browser() as window:
        read: list[str] = []
        window.on("request", lambda request: read.append(request.url))
        window.goto(INDEX.as_uri())
        window.locator("input.md-search__input").click()
        window.keyboard.type("smoothing scales")
        window.locator(".md-search-result__link").first.wait_for(state="attached")
        found = window.locator(".md-search-result__link").evaluate_all(
            "links => links.map(each => each.href)"
        )
    assert any(each.split("#")[0].endswith("how/quantization.html") for each in found)
    assert [each for each in read if not each.startswith("file:")] == []
