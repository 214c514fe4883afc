"""The page of a run: what it shows, what it leaves out, and that nothing in it can act or ask."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from markupsafe import escape

from roots_compress.report.compare import comparison
from roots_compress.report.html import comparison_html, html
from roots_compress.report.page.sections import samples as samples_of
from roots_compress.report.verdict import verdict
from roots_compress.results import Point, RunMetrics, Sample
from roots_compress.tasks.registry import task_named
from roots_compress.training.summary import Judged
from tests.report.figures import PROTOCOL, SEARCH, candidate, full_run, run, speeds, stage

HOSTILE = '</script><img src=x onerror="alert(1)">&{{ 7*7 }}\x1b[31m\u202e' + "long" * 2000
RUN = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=21.0))
SECTIONS = ("stages", "gates", "trade-off", "size", "quality", "speed", "training", "search", "repeat")


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="([\w-]+)"', page)


class Tags(HTMLParser):
    """Collects the elements of a page, and checks that each is closed."""

    VOID = ("meta", "link", "wbr", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def elements(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = Tags()
    parser.feed(page)
    assert parser.open == []
    return parser.seen


def hostile(value: Any) -> Any:
    """Return a document of figures with each name and text replaced."""
    if isinstance(value, dict):
        return {
            key: each if key in ("task", "kind", "role") else hostile(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [hostile(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_a_full_run_has_every_section_and_weighs_little() -> None:
    page = html(replace(full_run(), search=SEARCH), recipe="name: x")
    assert tuple(sections(page)) == SECTIONS
    assert verdict(full_run()).reason in page
    assert len(page) < 200_000
    elements(page)


def test_a_long_name_may_break_after_its_dots_and_underscores() -> None:
    page = html(full_run())
    assert "<wbr>layers.<wbr>" in page
    assert "_<wbr>proj" in page
    text = "Python 3.11.7: all"
    assert text in html(run(stage(), protocol=replace(PROTOCOL, text=text))).partition('id="repeat"')[2]


def test_a_run_is_repeated_from_the_recipe_with_absolute_paths() -> None:
    page = html(full_run())
    assert ">roots-compress run resolved.json --run ../again\n" in page


def test_figures_that_are_not_there_leave_their_sections_out() -> None:
    timeless = run(stage(decode=(), prefill=()))
    page = html(timeless)
    assert sections(page) == ["stages", "trade-off", "repeat"]
    assert "The recipe" not in page
    assert 'class="scroll"' in page


def test_nothing_that_stands_in_a_file_becomes_markup() -> None:
    document = hostile(json.loads(json.dumps(replace(full_run(), search=SEARCH).to_json())))
    figures = replace(RunMetrics.from_json(document), name=HOSTILE)
    tried = replace(candidate(HOSTILE), on_front=False)
    figures = replace(figures, search=replace(SEARCH, candidates=(tried,), failed={HOSTILE: HOSTILE}))
    figures = replace(
        figures,
        stages=tuple(replace(row, curves={HOSTILE: row.curves.get("loss", ())}) for row in figures.stages),
    )
    page = html(figures, recipe=HOSTILE)
    seen = elements(page)
    assert [tag for tag, _ in seen].count("script") == 1
    assert "img" not in {tag for tag, _ in seen}
    assert not [key for _, attributes in seen for key in attributes if key.startswith("on")]
    assert "\x1b" not in page
    assert "49" not in re.findall(r"&amp;(\S+)", page)


def test_a_page_asks_for_nothing_and_runs_its_own_script_alone() -> None:
    page = html(full_run())
    assert not re.search(r"https?:|url\(|@import|\bsrc=", page)
    script = page[page.index("<script>") + 8 : page.index("</script>")]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_a_continuation_shows_where_it_departs_from_the_first_row() -> None:
    page = html(full_run())
    assert "<dd>to the sea, and nobody asks why.</dd>" in page
    assert '<dd><span class="same">to the sea, and nobody </span>knows why.</dd>' in page


def test_lines_that_equal_the_first_rows_are_told_apart_from_the_rest() -> None:
    rows = [
        stage(0, samples=(Sample("A", " files.\n\n# x"),)),
        stage(1, samples=(Sample("A", " files.\n\nThe"),)),
    ]
    (written,) = samples_of(run(*rows))
    assert written.texts[1] == ("01-baseline", "files.\n\n", "The")


def test_equal_prompts_are_shown_one_by_one() -> None:
    samples = (Sample("Once", " a fox"), Sample("Once", " a crow"))
    written = samples_of(run(stage(samples=samples), stage(1, "quantize", samples=samples)))
    assert [[text for _, *parts in each.texts for text in ["".join(parts)]] for each in written] == [
        ["a fox"] * 2,
        ["a crow"] * 2,
    ]


def test_agreement_names_its_noise_floor() -> None:
    page = html(full_run())
    assert "00-baseline compares that model's graph with its own checkpoint" in page
    assert "<td>94.00%</td>" in page


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        ((100.0, 77.0), "a token, within noise of 12.5 ms"),
        ((100.0, 160.0), "a token, 2.0x faster than 12.5 ms"),
        ((100.0, 40.0), "a token, 2.0x slower than 12.5 ms"),
    ],
)
def test_the_tile_of_speed_agrees_with_the_verdict(decode: tuple[float, float], said: str) -> None:
    page = html(run(stage(), stage(1, "quantize", size=2_000_000, decode=decode)))
    assert said in page
    assert ("as fast" in page.partition('<dl class="tiles">')[0]) is ("noise" in said)


@pytest.mark.parametrize(
    ("task", "read"),
    [
        ("causal_lm", "context"),
        ("masked_lm", "text"),
        ("sentence_embedding", "text"),
        ("seq2seq_lm", "source"),
    ],
)
def test_lengths_are_of_what_the_task_reads(task: str, read: str) -> None:
    of = task_named(task)
    timings = {workload.figure: speeds(100.0, 80.0) for workload in of.workloads}
    metrics = replace(stage().metrics, quality={each.name: 0.5 for each in of.metrics}, timings=timings)
    page = html(run(stage(metrics=metrics, samples=(Sample("A", " b"),)), task=task))
    assert f"512 tokens of {read}</dt>" in page
    assert f">tokens of {read}</text>" in page
    assert f"for {read}s of 128 / 512 tokens" in page
    assert f"At the longest {read}." in page
    assert ("Continuations of held-out prompts" in page) is (read == "context")


def test_a_training_says_what_it_did_on_text_that_was_kept_back() -> None:
    curves = {name: (Point(1, 0.5), Point(2, 0.6 + place)) for place, name in enumerate(("loss", "pairs"))}
    judged = Judged(5.6552, 5.6439, 64)
    rows = [
        stage(1, "prune", curves=curves, notes={"recovery": {"judged": judged.to_json()}}),
        stage(2, "tune", curves=curves, notes={"judged": replace(judged, after=5.7).to_json()}),
    ]
    page = html(run(stage(), *rows))
    assert page.count("5.655 before, 5.644 after, so the trained weights were kept.") == 1
    assert page.count("5.655 before, 5.7 after, so the weights from before were kept.") == 1
    assert "01-prune: next-sentence loss (nsp)" in page


def test_a_stage_that_takes_nothing_off_has_no_sign() -> None:
    page = html(run(stage(), stage(1, "tune", size=8_000_120), stage(2, "quantize", size=2_000_000)))
    assert re.findall(r'class="amount">([^<]+)', page)[:4] == ["8.0 MB", "no change", "−6.0 MB", "2.0 MB"]


def test_a_table_of_many_columns_is_dense() -> None:
    task = task_named("seq2seq_lm")
    metrics = replace(
        stage().metrics,
        quality={each.name: 0.5 for each in task.metrics},
        timings={workload.figure: speeds(100.0, 80.0) for workload in task.workloads},
    )
    assert 'class="sorts dense ' in html(run(stage(metrics=metrics), task=task.name))
    assert 'class="sorts dense ' not in html(full_run())


def test_a_stage_that_did_not_pay_is_marked() -> None:
    page = html(run(stage(), stage(1, "quantize", perplexity=40.0)))
    assert '<li class="bad"><b>01-quantize:</b>' in page
    assert 'class="verdict hold"' in page


def test_a_search_is_drawn_with_its_controls() -> None:
    page = html(replace(RUN, search=SEARCH))
    assert page.count('class="control') == 4, "two charts at two widths"
    assert '<tr class="chosen"><th scope="row">prune &gt; int8</th>' in page


def test_runs_are_compared_on_a_page() -> None:
    runs = [(HOSTILE, full_run()), ("other", replace(full_run(), name=HOSTILE))]
    page = comparison_html(comparison(runs), [run for _, run in runs])
    seen = elements(page)
    assert {"script", "svg"} <= {tag for tag, _ in seen}
    assert "img" not in {tag for tag, _ in seen}
    assert page.count(escape(verdict(full_run()).reason)) == 2
    unlike = [runs[0], ("other", replace(RUN, protocol=replace(RUN.protocol, text_sha256="c" * 64)))]
    page = comparison_html(comparison(unlike), [run for _, run in unlike])
    assert "<svg" not in page
    assert "Quality does not compare" in page


@pytest.mark.parametrize("value", [1e-300, 1e299])
def test_extreme_figures_are_drawn(value: float) -> None:
    rows = (stage(), stage(1, "quantize", perplexity=value, decode=(value,), prefill=(value,)))
    elements(html(run(*rows)))
