"""Figures of a run, made up but complete, for the report to show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roots_compress.results import (
    CandidateResult,
    Metrics,
    Protocol,
    RunMetrics,
    SearchResult,
    Speed,
    StageKind,
    StageResult,
)


def speeds(*medians: float) -> tuple[Speed, ...]:
    return tuple(
        Speed(context=128 * 4**index, median=median, low=median * 0.9, high=median * 1.1)
        for index, median in enumerate(medians)
    )


def stage(
    index: int = 0,
    kind: StageKind = "baseline",
    *,
    size: int = 8_000_000,
    perplexity: float = 20.0,
    decode: tuple[float, ...] = (100.0, 80.0),
    prefill: tuple[float, ...] = (1000.0, 900.0),
    **changes: Any,
) -> StageResult:
    metrics = Metrics(
        parameters=2_000_000,
        bytes=size,
        quality={"perplexity": perplexity, "bits_per_byte": 1.5, "torch_perplexity": perplexity},
        timings={
            "prefill_tokens_per_second": speeds(*prefill),
            "decode_tokens_per_second": speeds(*decode),
        },
        peak_rss_bytes=100_000_000,
    )
    result = StageResult(
        index=index,
        kind=kind,
        name=kind,
        seconds=1.5,
        metrics=metrics,
        onnx=f"{index:02d}-{kind}/onnx/model.onnx",
    )
    return replace(result, **changes)


PROTOCOL = Protocol(
    block_size=512,
    windows=24,
    tokens=12264,
    text_bytes=50_000,
    bos=True,
    text_sha256="a" * 64,
    tokenizer_sha256="b" * 64,
    contexts=(128, 512),
    decode_tokens=16,
    repeats=5,
    threads=2,
    text="the built-in corpus",
)


def candidate(*stages: str, ratio: float = 1.1, **changes: Any) -> CandidateResult:
    result = CandidateResult(
        stages=stages,
        role="candidate",
        bytes=2_000_000,
        figures={"decode_ms": 1.25, "perplexity_ratio": ratio},
        on_front=True,
        keeps_budgets=True,
    )
    return replace(result, **changes)


SEARCH = SearchResult(
    candidates=(
        candidate("prune", "int8"),
        candidate("int8", role="control", on_front=False),
        candidate(role="baseline", keeps_budgets=False, bytes=8_000_000),
    ),
    best=("prune", "int8"),
    failed={},
    untried=3,
    max_minutes=8.0,
)


def run(*stages: StageResult, **changes: Any) -> RunMetrics:
    return replace(RunMetrics(name="demo", machine={"cpu": "x"}, protocol=PROTOCOL, stages=stages), **changes)
