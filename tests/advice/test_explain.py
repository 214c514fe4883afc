"""What a compression came to, in sentences."""

from __future__ import annotations

from roots_compress.advice.bounds import Bounds
from roots_compress.advice.explain import explain
from roots_compress.results import SearchResult
from roots_compress.tasks.registry import task_named
from tests.report.figures import candidate


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
