"""Speeds are those of the tokens timed; models take turns; the child process serves what the parent asks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from roots_compress.errors import InputError
from roots_compress.evaluation import speed
from roots_compress.evaluation.speed import measure_speed, summarise, time_models
from roots_compress.results import Speed
from roots_compress.runtime.protocol import Step, Tokens
from roots_compress.tasks.registry import CAUSAL_LM
from tests.evaluation.models import BigramModel
from tests.runtime.graphs import history_model, random_weights, write_graph


class LoggedModel(BigramModel):
    """Writes each prompt's length under its name into a shared log."""

    def __init__(self, name: str, log: list[tuple[str, int]]) -> None:
        super().__init__(np.zeros((7, 7), np.float32))
        self.name, self.log = name, log

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        self.log.append((self.name, input_ids.shape[1]))
        return super().prefill(input_ids)


def test_models_take_turns_after_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.0)
    log: list[tuple[str, int]] = []
    models = {name: LoggedModel(name, log) for name in ("a", "b", "c")}
    timings = time_models(CAUSAL_LM, models, [2, 4], decode_tokens=3, repeats=3)
    warm_up = [(name, context) for context in (2, 4) for name in "aabbcc"]
    timed = [(name, context) for order in ("abc", "bca", "cab") for context in (2, 4) for name in order]
    assert log == warm_up + timed
    assert [len(at) for row in timings.values() for at in row] == [3] * 6


def test_a_quick_model_is_run_until_a_timing_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.02)
    log: list[tuple[str, int]] = []
    time_models(CAUSAL_LM, {"a": LoggedModel("a", log)}, [2], decode_tokens=3, repeats=1)
    assert len(log) > 20


class SlowReader(LoggedModel):
    """Takes its time over a prompt."""

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        time.sleep(0.05)
        return super().prefill(input_ids)


def test_a_slow_prompt_does_not_slow_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "MIN_SECONDS", 0.0)
    timings = time_models(CAUSAL_LM, {"a": SlowReader("a", [])}, [2], decode_tokens=1, repeats=5)["a"][0]
    assert all(prefill_seconds >= 0.05 for (_, prefill_seconds), _ in timings)
    assert min(decode_seconds for _, (_, decode_seconds) in timings) < 0.05


def test_speed_is_the_median_and_the_extremes() -> None:
    timings = [[((128, prefill), (16, decode)) for prefill, decode in ((1.0, 0.5), (4.0, 0.25), (2.0, 1.0))]]
    assert summarise(CAUSAL_LM, timings, [128]) == {
        "prefill": (Speed(context=128, median=64.0, low=32.0, high=128.0, repeats=(128.0, 32.0, 64.0)),),
        "decode": (Speed(context=128, median=32.0, low=16.0, high=64.0, repeats=(32.0, 64.0, 16.0)),),
    }


def test_contexts_leave_room_for_the_tokens_decoded() -> None:
    assert CAUSAL_LM.lengths([512, 128], decode_tokens=16, longest=1024) == [128, 512]
    assert CAUSAL_LM.lengths([128, 512], decode_tokens=16, longest=256) == [128, 240]
    assert CAUSAL_LM.lengths([128, 512], decode_tokens=16, longest=64) == [48]
    with pytest.raises(InputError, match="leave no room"):
        CAUSAL_LM.lengths([128], decode_tokens=16, longest=16)


@pytest.mark.usefixtures("fresh_children")
def test_graphs_are_timed_in_a_process_of_their_own(tmp_path: Path) -> None:
    folders = {
        "one": write_graph(tmp_path / "one", history_model(random_weights())),
        "two": write_graph(tmp_path / "two", history_model(random_weights(1)), max_context=8, external=True),
    }
    steps: list[tuple[int, int]] = []
    speeds = measure_speed(
        folders,
        contexts=[4, 128],
        decode_tokens=2,
        repeats=3,
        threads=1,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert list(speeds) == ["one", "two"]
    for row in (*speeds["one"].values(), *speeds["two"].values()):
        # The shorter of the two contexts, 8, leaves 6 tokens of prompt for both.
        assert [each.context for each in row] == [4, 6]
        assert all(0 < each.low <= each.median <= each.high for each in row)
    assert steps == [(done, 12) for done in range(1, 13)]


def test_a_broken_folder_is_refused_before_any_process_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no model\.onnx"):
        measure_speed({"one": tmp_path}, contexts=[4], decode_tokens=2, repeats=1, threads=1)


def test_a_graph_that_cannot_run_is_said_by_the_child_to_be_at_fault(tmp_path: Path) -> None:
    model = history_model(random_weights())
    # The graph opens; its table is too short for the vocabulary that config.json claims, so running it fails.
    folder = write_graph(tmp_path, model)
    config = folder / "config.json"
    config.write_text('{"vocab_size": 70, "max_position_embeddings": 16}', encoding="utf-8")
    with pytest.raises(InputError, match="a vocabulary of 70"):
        measure_speed({"one": folder}, contexts=[4], decode_tokens=2, repeats=1, threads=1)
