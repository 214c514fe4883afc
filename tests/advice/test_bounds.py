"""Targets as people write them, and bounds as gates on a task's own figures."""

from __future__ import annotations

from typing import Any

import pytest

from roots_compress.advice.bounds import Bounds, bounds_of, read_percent, read_targets
from roots_compress.errors import InputError
from roots_compress.tasks.registry import task_named


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["100 MB"], Bounds(max_bytes=100_000_000)),
        (["1.5GiB", "3x faster"], Bounds(max_bytes=3 << 29, min_speedup=3.0)),
        (["2.5x  faster", "at most 5% worse", " 800kB "], Bounds(800_000, 2.5, 0.05)),
        (["0.5 % worse"], Bounds(max_loss=0.005)),
        ([], Bounds()),
    ],
)
def test_targets_are_read(texts: list[str], expected: Bounds) -> None:
    assert read_targets(texts) == expected


@pytest.mark.parametrize("text", ["small", "100", "faster", "3 faster", "5%", "-1 MB", "1e3 MB", "", "٣ MB"])
def test_another_target_is_refused_with_the_three_forms(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_targets([text])
    for form in ("100 MB", "3x faster", "at most 5% worse"):
        assert form in str(caught.value)


@pytest.mark.parametrize("texts", [["0 MB"], ["0x faster"], ["1 MB", "2 MB"]])
def test_targets_that_ask_for_nothing_or_twice_are_refused(texts: list[str]) -> None:
    with pytest.raises(InputError, match="--target"):
        read_targets(texts)


def test_a_loss_is_a_percentage_and_a_bound_is_a_number_above_0() -> None:
    assert read_percent("5 %", "--max-loss") == 0.05
    for wrong in (
        lambda: read_percent("5", "--max-loss"),
        bounds_of,
        lambda: bounds_of(max_mb=0),
        lambda: bounds_of(min_speedup=float("nan")),
        lambda: bounds_of(max_loss=-0.1),
    ):
        with pytest.raises(InputError):
            wrong()


@pytest.mark.parametrize(
    ("task", "gates"),
    [
        ("causal_lm", {"min_decode_speedup": 2.0, "max_perplexity_ratio": 1.05}),
        ("classification", {"min_encode_speedup": 2.0, "min_accuracy_change": -0.05}),
        ("seq2seq_lm", {"min_decode_speedup": 2.0, "max_target_perplexity_ratio": 1.05}),
        ("sentence_embedding", {"min_encode_speedup": 2.0, "min_cosine_change": -0.05}),
    ],
)
def test_bounds_are_gates_on_what_decides_in_a_task(task: str, gates: dict[str, float]) -> None:
    assert Bounds(1000, 2.0, 0.05).gates(task_named(task)) == {"max_bytes": 1000, **gates}


def test_a_bound_of_another_type_is_refused_by_its_name() -> None:
    text: Any = "5%"
    with pytest.raises(InputError, match="no number") as refused:
        bounds_of(max_loss=text)
    assert refused.value.where == "max_loss"


def test_no_loss_is_a_gate_of_0() -> None:
    assert str(Bounds(max_loss=0.0).gates(task_named("classification"))["min_accuracy_change"]) == "0.0"


@pytest.mark.parametrize(
    ("task", "loss", "said"),
    [
        ("causal_lm", 0.01, "perplexity at most 1% worse"),
        ("classification", 0.01, "accuracy at most 1 point of 100 worse"),
        ("classification", 0.005, "accuracy at most 0.5 points of 100 worse"),
    ],
)
def test_a_bound_on_the_loss_is_told_in_the_metric_s_own_measure(task: str, loss: float, said: str) -> None:
    assert Bounds(max_loss=loss).told(task_named(task)) == [said]
