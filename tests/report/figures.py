"""Figures of a run, made up but complete, for the report to show."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from roots_compress.results import (
    CandidateResult,
    GateResult,
    Json,
    LayerError,
    Metrics,
    Point,
    Protocol,
    RunMetrics,
    Sample,
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


def full_run() -> RunMetrics:
    """Return a run with every optional figure, as of a decoder of 12 layers in four stages."""
    kinds = ("baseline", "distill", "prune", "quantize")
    sizes, values = (538_000_000, 402_000_000, 331_000_000, 92_500_000), (14.2, 16.9, 17.4, 17.6)
    rows = [
        stage(
            index,
            kind,
            size=size,
            perplexity=value,
            decode=(30.0 + 20 * index, 26.0 + 18 * index, 20.0 + 12 * index),
            prefill=(300.0 + 150 * index, 280.0 + 140 * index, 240.0 + 90 * index),
        )
        for index, (kind, size, value) in enumerate(zip(kinds, sizes, values, strict=True))
    ]
    for index, row in enumerate(rows):
        value, size = values[index], sizes[index]
        parts = {"embeddings": size * 2 // 10, "attention": size * 3 // 10, "norms": size // 1000}
        noise = 1e-6 if index == 0 else 0.02 * index
        agreement = {"kl_mean": noise, "kl_median": noise / 2, "kl_p99": noise * 9, "same_top": 1 - noise}
        metrics = replace(
            row.metrics,
            quality={
                **row.metrics.quality,
                **agreement,
                "perplexity_from_1": value * 1.4,
                "perplexity_from_64": value * 0.95,
            },
            intervals={
                "perplexity": (value * 0.96, value * 1.04),
                "perplexity_ratio": (value / 14.2 * 0.99, value / 14.2 * 1.01),
                "bits_per_byte": (1.45, 1.55),
            },
            bytes_by_group={**parts, "feed-forward": size - sum(parts.values())},
        )
        samples = (
            Sample("The river runs", f" to the sea, and nobody {'asks' if index < 2 else 'knows'} why."),
            Sample("def area(radius):\n", f"    return {3.14 + index} * radius ** 2\n"),
        )
        rows[index] = replace(row, metrics=metrics, samples=samples)
    steps = range(1, 1200, 3)
    falling = tuple(Point(step, 2.2 + 3 * math.exp(-step / 200) + 0.1 * math.sin(step)) for step in steps)
    rows[1] = replace(rows[1], curves={"loss": falling, "quality": falling[::60]})
    names = (f"model.layers.{layer}.{part}" for layer in range(12) for part in PARTS)
    errors = [
        LayerError(f"{name}.weight", 0.001 + 0.0002 * (index * 7 % 11)) for index, name in enumerate(names)
    ]
    errors[23] = LayerError(errors[23].name, 0.021, higher_precision=True)
    errors[47] = LayerError(errors[47].name, 0.009)
    choice: dict[str, Json] = {"scheme": "int8", "formats": {"q_proj w8a8": 12}}
    rows[3] = replace(rows[3], layer_errors=tuple(errors), notes=choice)
    gates = (
        GateResult("max_perplexity_ratio", 1.3, 17.6 / 14.2, True),
        GateResult("min_size_ratio", 4.0, 538 / 92.5, True),
    )
    machine: dict[str, Json] = {
        "cpu": "AMD EPYC",
        "instruction_set": "x86_64+avx2",
        "device": "cpu",
        "cores": 2,
        "versions": {"torch": "2.13.0", "onnxruntime": "1.31.1"},
    }
    return run(*rows, gates=gates, machine=machine, name="smollm2-135m")


PARTS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
