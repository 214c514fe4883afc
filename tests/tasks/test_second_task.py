"""Another task than text generation shows in every report by what it says of itself."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from roots_compress.configs.gates import GatesConfig
from roots_compress.errors import InputError
from roots_compress.report import compare_text
from roots_compress.report.compare import comparison
from roots_compress.report.gates import judge
from roots_compress.report.html import html
from roots_compress.report.markdown import markdown
from roots_compress.report.reading import read_figures
from roots_compress.report.rows import rows_of
from roots_compress.report.text import cells, headings, table
from roots_compress.results import CandidateResult, Protocol, RunMetrics, SearchResult, StageResult
from roots_compress.search.choice import Budgets, Point, budgets_of
from roots_compress.tasks import registry
from roots_compress.tasks.causal_lm import CausalLM
from roots_compress.tasks.figures.figures import Metric, Workload
from roots_compress.tasks.registry import CAUSAL_LM, task_of
from tests.report import figures


class Labels(CausalLM):
    """Tells apart what a text is about; how it is measured does not matter here."""

    name = "labels"
    heads = ("ForLabels",)
    metrics = (Metric("accuracy", "accuracy", "higher", relative=False),)
    workloads = (Workload("label", "label_texts_per_second", "texts/s", "Labelling, texts a second", "text"),)

    def caption(self, protocol: Protocol) -> str:
        return f"Accuracy on {protocol.windows} texts."


class LabelGates(GatesConfig):
    min_accuracy: float | None = None
    min_label_speedup: float | None = None


LABELS = Labels()


@pytest.fixture(autouse=True)
def _known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "TASKS", (CAUSAL_LM, LABELS))


def stage(index: int, accuracy: float, speed: float, size: int = 8_000_000) -> StageResult:
    kind = "quantize" if index else "baseline"
    row = figures.stage(index, kind, size=size)
    return replace(
        row,
        metrics=replace(
            row.metrics,
            quality={"accuracy": accuracy, "torch_accuracy": accuracy},
            timings={"label_texts_per_second": figures.speeds(speed)},
        ),
    )


def run(*stages: StageResult) -> RunMetrics:
    return figures.run(*stages, task="labels")


RUN = run(stage(0, 0.9, 100.0), stage(1, 0.88, 200.0, 2_000_000))


def test_a_model_s_head_names_its_task() -> None:
    assert task_of(["BertForLabels"]) is LABELS
    assert task_of(["LlamaForCausalLM"]) is task_of(["GPT2LMHeadModel"]) is task_of(None) is CAUSAL_LM
    with pytest.raises(InputError, match="no task is known for BertForPoems") as caught:
        task_of(["BertForPoems"])
    assert caught.value.remedy is not None
    assert "ForLabels" in caught.value.remedy


def test_a_table_has_the_task_s_own_columns() -> None:
    shown = dict(zip(headings(LABELS), cells(rows_of(RUN)[1]), strict=True))
    assert shown["accuracy"] == "0.880"
    assert shown["change"] == "-0.020"
    assert shown["texts/s"] == "200"
    assert shown["label gain"] == "2.00x"


def test_every_form_tells_of_this_task_alone() -> None:
    console = Console(width=200, record=True, file=StringIO())
    console.print(table(RUN), *compare_text.tables(comparison([("one", RUN), ("two", RUN)])))
    for text in (console.export_text(), markdown(RUN), html(RUN)):
        assert "accuracy" in text
        assert "perplexity" not in text.replace("what perplexity and timings depend on", "")
        assert "decode" not in text.lower().replace("decode_tokens", "")


def test_a_search_has_the_task_s_figures() -> None:
    measured = {"label_ms": 5.0, "accuracy_change": -0.02}
    search = SearchResult((CandidateResult(("half",), "candidate", 8, measured, True, True),), (), {}, 0, 1.0)
    found = replace(RUN, search=search)
    assert RunMetrics.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert "| label ms | accuracy change |" in markdown(found)
    assert "0.00 MB, 5 ms a text, accuracy -0.020" in html(found)
    gates = LabelGates(min_label_speedup=2.0, min_accuracy=0.85)
    budgets = budgets_of(LABELS, gates, Point(8, 5.0, 1.0), 0.9)
    assert budgets == pytest.approx(Budgets(milliseconds=2.5, cost=math.exp(0.05)))
    assert LABELS.metric.of_cost(budgets.cost) == pytest.approx(-0.05)


def test_a_verdict_goes_by_the_metric_s_direction() -> None:
    assert rows_of(RUN)[1].verdict == "against baseline: 4.00x smaller, label 2.00x faster, accuracy -0.020"
    worse, better = (run(stage(0, 0.9, 100.0), stage(1, reached, 100.0)) for reached in (0.88, 0.92))
    assert "GAINED NOTHING" in rows_of(worse)[1].verdict
    assert "GAINED NOTHING" not in rows_of(better)[1].verdict


def test_gates_bound_the_task_s_metrics_and_workloads() -> None:
    assert [gate.passed for gate in judge(LabelGates(min_accuracy=0.88, min_label_speedup=2.0), RUN)] == [
        True
    ] * 2
    assert [gate.passed for gate in judge(LabelGates(min_accuracy=0.89), RUN)] == [False]


def test_runs_of_two_tasks_are_not_compared() -> None:
    with pytest.raises(InputError, match="a run for the task causal_lm, and one is one for labels"):
        comparison([("one", RUN), ("two", figures.run(figures.stage()))])


def test_figures_are_read_by_the_run_s_task(tmp_path: Path) -> None:
    path, document = tmp_path / "metrics.json", RUN.to_json()
    path.write_text(json.dumps(document))
    assert read_figures(tmp_path) == RUN
    del document["stages"][1]["accuracy"]
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"\(stages\[1\]\.accuracy is missing, or is not a number\)"):
        read_figures(tmp_path)
    path.write_text(json.dumps({**document, "task": "poems"}))
    with pytest.raises(InputError, match="no task is called 'poems'"):
        read_figures(tmp_path)
