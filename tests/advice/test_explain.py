"""What a compression came to, in sentences."""

from __future__ import annotations

import pytest

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.explain import at_the_end, explain
from roots_compress.results import GateResult, SearchResult
from roots_compress.tasks.registry import task_named
from tests.report.figures import candidate, run, stage


def test_a_candidate_took_what_all_its_stages_took() -> None:
    chain = ("half", "int8")
    tried = (
        candidate(*chain, seconds=6.0, bytes=1_000_000),
        candidate("half", seconds=24.0, keeps_budgets=False, bytes=3_000_000),
        candidate(role="baseline", seconds=5.0, keeps_budgets=False, bytes=8_000_000),
    )
    search = SearchResult(candidates=tried, best=chain, failed={}, untried=0, max_minutes=8.0)
    bounds = Bounds(max_bytes=2_000_000)
    told = " ".join(explain(task_named("causal_lm"), bounds, (chain,), search, left_out={}))
    assert "half > int8: 1.0 MB (8.00x smaller), 1.00x as fast, perplexity +10.0%, in 30 s" in told


def test_each_bound_that_is_missed_is_told_with_how_far() -> None:
    tried = (
        candidate("int8", keeps_budgets=False, bytes=3_000_000, ratio=1.2),
        candidate(role="baseline", keeps_budgets=False, bytes=8_000_000, ratio=1.0),
    )
    search = SearchResult(
        candidates=tried, best=("int8",), failed={"int4": "no weight fits."}, untried=1, max_minutes=8.0
    )
    bounds = Bounds(max_bytes=2_000_000, min_speedup=1.5, max_loss=0.05)
    listed = (("int8",), ("int4",), ("half", "int8"))
    left_out: dict[tuple[str, ...], str] = {("half",): "nothing to cut"}
    told = list(explain(task_named("causal_lm"), bounds, listed, search, left_out=left_out))
    missed = (
        "3.0 MB, 1.50 times the 2.0 MB allowed; 1.00 times as fast, 1.5 times asked for; "
        "perplexity +20.0%, +5.0% allowed"
    )
    row = "3.0 MB (2.67x smaller), 1.00x as fast, perplexity +20.0%"
    assert told == [
        "Asked for: at most 2.0 MB; at least 1.5 times as fast (decode); perplexity at most 5% worse.",
        "Left out: half (nothing to cut).",
        f"int8: {row}: misses: {missed}.",
        "int4 could not be made: no weight fits.",
        f"No candidate keeps all bounds. Nearest: int8, with {row}. It misses: {missed}.",
        "Not tried, because they are predicted to miss by far or the time was over: half > int8.",
    ]


def test_a_loss_of_what_is_allowed_keeps_the_bound() -> None:
    """1 - 0.08 - 1 is nearer to 0 than -0.08, and the sentence must say what the search found."""
    task = task_named("classification")
    tried = tuple(
        candidate(*stages, figures={"encode_ms": 1.0, "accuracy_change": change}, role=role)
        for stages, change, role in (
            (("int8",), task.metric.of_cost(task.metric.cost(-0.08)), "candidate"),
            ((), 0.0, "baseline"),
        )
    )
    search = SearchResult(candidates=tried, best=("int8",), failed={}, untried=0, max_minutes=8.0)
    told = " ".join(explain(task, Bounds(max_loss=0.08), (("int8",),), search, left_out={}))
    assert "accuracy -0.0800: keeps them all." in told


@pytest.mark.parametrize(
    ("size", "speedup", "missed", "said"),
    [
        (1_000_000, 1.0, {}, []),
        (3_000_000, 1.0, {"max_bytes": "max_bytes is 3"}, []),
        (
            1_000_000,
            1.0,
            {"min_decode_speedup": "min_decode_speedup is 0.9"},
            ["Missed, when its stages were timed in turns at the end: min_decode_speedup is 0.9."],
        ),
        (1_000_000, 0.9, {}, ["When its stages were timed in turns at the end, it kept all bounds."]),
    ],
    ids=["kept twice", "missed twice", "kept at first", "missed at first"],
)
def test_the_timing_at_the_end_is_told_where_it_finds_something_else(
    size: int, speedup: float, missed: dict[str, str], said: list[str]
) -> None:
    tried = (
        candidate("int8", bytes=size, figures={"decode_ms": 1 / speedup, "perplexity_ratio": 1.0}),
        candidate(role="baseline", figures={"decode_ms": 1.0, "perplexity_ratio": 1.0}),
    )
    search = SearchResult(candidates=tried, best=("int8",), failed={}, untried=0, max_minutes=8.0)
    gates = tuple(
        GateResult(gate, limit=1.0, value=float(line.rpartition(" ")[2]), passed=False)
        for gate, line in missed.items()
    )
    bounds = Bounds(max_bytes=2_000_000, min_speedup=1.0)
    metrics = run(stage(), stage(1, "quantize"), search=search, gates=gates)
    found = [each.replace(", limit 1", "") for each in at_the_end(task_named("causal_lm"), bounds, metrics)]
    assert found == said
