"""Gates: which bounds are judged, and what a miss does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from roots_compress.configs.recipe.schema import GatesConfig
from roots_compress.errors import GateMissedError
from roots_compress.report.gates import judge, require
from roots_compress.results import GateResult
from tests.report.figures import run, stage

RUN = run(stage(), stage(1, "quantize", size=2_000_000, perplexity=22.0, decode=(200.0, 160.0)))


def test_only_the_gates_that_are_set_are_judged() -> None:
    assert judge(GatesConfig(), RUN) == ()
    assert [gate.gate for gate in judge(GatesConfig(max_bytes=1), RUN)] == ["max_bytes"]


@pytest.mark.parametrize(
    ("kept", "missed"),
    [
        (GatesConfig(max_perplexity_ratio=1.1), GatesConfig(max_perplexity_ratio=1.09)),
        (GatesConfig(max_bytes=2_000_000), GatesConfig(max_bytes=1_999_999)),
        # 160 tokens a second at the longest context are 6.25 ms each.
        (GatesConfig(max_decode_ms=6.25), GatesConfig(max_decode_ms=6.24)),
        (GatesConfig(min_size_ratio=4.0), GatesConfig(min_size_ratio=4.01)),
        (GatesConfig(min_decode_speedup=2.0), GatesConfig(min_decode_speedup=2.01)),
    ],
)
def test_a_gate_is_kept_at_its_limit_and_missed_beyond(kept: GatesConfig, missed: GatesConfig) -> None:
    assert [gate.passed for gate in judge(kept, RUN)] == [True]
    assert [gate.passed for gate in judge(missed, RUN)] == [False]


def test_a_figure_that_is_no_number_passes_no_gate() -> None:
    broken = run(stage(), stage(1, "quantize", perplexity=float("nan")))
    assert not judge(GatesConfig(max_perplexity_ratio=100.0), broken)[0].passed


def test_missed_gates_end_with_exit_code_3_and_name_limit_and_value() -> None:
    results = judge(GatesConfig(max_bytes=1_000_000, min_size_ratio=2.0), RUN)
    with pytest.raises(
        GateMissedError, match="1 of 2 gates missed: max_bytes is 2e\\+06, limit 1e\\+06"
    ) as raised:
        require(results, "recipe.yaml")
    assert raised.value.exit_code == 3


def test_kept_gates_raise_nothing() -> None:
    require(judge(GatesConfig(max_bytes=2_000_000), RUN), "recipe.yaml")


@pytest.mark.parametrize("met", [True, False])
def test_a_stages_own_bound_is_a_gate_under_the_stages_name(met: bool) -> None:
    own = GateResult("target.decode_ms", limit=2.0, value=2.5, passed=met)
    cut = replace(stage(1, "prune"), gates=(own,))
    (gate,) = judge(GatesConfig(), run(stage(), cut, stage(2, "quantize")))
    assert gate == replace(own, gate="prune.target.decode_ms")
