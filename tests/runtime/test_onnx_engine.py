"""The ONNX engine answers as numpy does, whatever the batch, the padding and the way the tokens are fed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.prompts import left_pad
from tests.runtime.graphs import (
    MAX_CONTEXT,
    VOCAB_SIZE,
    counts_positions,
    expected_logits,
    history_model,
    random_weights,
    reads_int32,
    write_graph,
)

WEIGHTS = random_weights()
PROMPT = [3, 1, 4, 1, 5, 2, 6]


@pytest.fixture(scope="module", params=[False, True], ids=["all logits", "optional logits"])
def engine(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> OnnxEngine:
    model = history_model(WEIGHTS, optional_logits=request.param)
    folder = write_graph(tmp_path_factory.mktemp("graph"), model)
    return OnnxEngine.load(folder, threads=1, provider="cpu")


def test_logits_of_every_position(engine: OnnxEngine) -> None:
    logits = engine.logits(np.asarray([PROMPT]))
    np.testing.assert_allclose(logits[0], expected_logits(WEIGHTS, PROMPT), rtol=1e-5)


@pytest.mark.parametrize("split", range(1, len(PROMPT)))
def test_prefill_then_decode_equals_the_full_forward_at_every_split(engine: OnnxEngine, split: int) -> None:
    expected = expected_logits(WEIGHTS, PROMPT)
    step = engine.prefill(np.asarray([PROMPT[:split]]))
    np.testing.assert_allclose(step.logits[0], expected[split - 1], rtol=1e-5)
    for position in range(split, len(PROMPT)):
        step = engine.decode(np.asarray([PROMPT[position]]), step.cache)
        np.testing.assert_allclose(step.logits[0], expected[position], rtol=1e-5)


@pytest.mark.parametrize("changed", [counts_positions, reads_int32])
def test_graphs_that_count_positions_or_read_int32_answer_alike(
    changed: Callable[[onnx.ModelProto], onnx.ModelProto], tmp_path: Path
) -> None:
    folder = write_graph(tmp_path, changed(history_model(WEIGHTS)))
    engine = OnnxEngine.load(folder, threads=1, provider="cpu")
    expected = expected_logits(WEIGHTS, PROMPT)
    np.testing.assert_allclose(engine.logits(np.asarray([PROMPT]))[0], expected, rtol=1e-5)
    step = engine.prefill(np.asarray([PROMPT[:3]]))
    step = engine.decode(np.asarray([PROMPT[3]]), step.cache)
    np.testing.assert_allclose(step.logits[0], expected[3], rtol=1e-5)


def test_a_graph_without_positions_reads_no_padded_rows(tmp_path: Path) -> None:
    folder = write_graph(tmp_path, counts_positions(history_model(WEIGHTS)))
    engine = OnnxEngine.load(folder, threads=1, provider="cpu")
    input_ids, mask = left_pad([PROMPT, PROMPT[:3]])
    with pytest.raises(InputError, match="no input position_ids"):
        engine.logits(input_ids, mask)


def test_a_step_keeps_its_logits_when_the_engine_goes_on(engine: OnnxEngine) -> None:
    first = engine.prefill(np.asarray([PROMPT]))
    kept = first.logits.copy()
    engine.prefill(np.asarray([PROMPT[::-1]]))
    engine.decode(np.asarray([1]), first.cache)
    np.testing.assert_array_equal(first.logits, kept)


def test_a_ragged_batch_answers_as_its_rows_do_alone(engine: OnnxEngine) -> None:
    prompts = [PROMPT, PROMPT[:3], PROMPT[2:4]]
    input_ids, mask = left_pad(prompts)
    step = engine.prefill(input_ids, mask)
    full = engine.logits(input_ids, mask)
    for row, prompt in enumerate(prompts):
        expected = expected_logits(WEIGHTS, prompt)
        np.testing.assert_allclose(full[row, -len(prompt) :], expected, rtol=1e-5)
        np.testing.assert_allclose(step.logits[row], expected[-1], rtol=1e-5)
    for token in (6, 2):
        prompts = [[*prompt, token] for prompt in prompts]
        step = engine.decode(np.full(len(prompts), token), step.cache)
        for row, prompt in enumerate(prompts):
            np.testing.assert_allclose(step.logits[row], expected_logits(WEIGHTS, prompt)[-1], rtol=1e-5)


def test_the_context_may_be_filled_and_not_exceeded(engine: OnnxEngine) -> None:
    step = engine.prefill(np.ones((1, MAX_CONTEXT - 1), dtype=np.int64))
    step = engine.decode(np.asarray([1]), step.cache)
    with pytest.raises(InputError, match=f"{MAX_CONTEXT + 1} tokens of context are more than"):
        engine.decode(np.asarray([1]), step.cache)
    with pytest.raises(InputError, match="more than the model's"):
        engine.prefill(np.ones((1, MAX_CONTEXT + 1), dtype=np.int64))


@pytest.mark.parametrize("token", [-1, VOCAB_SIZE])
def test_a_token_outside_the_vocabulary_is_refused(engine: OnnxEngine, token: int) -> None:
    with pytest.raises(InputError, match=f"token id {token} is outside"):
        engine.logits(np.asarray([[1, token]]))


def test_a_prompt_of_no_token_is_refused(engine: OnnxEngine) -> None:
    with pytest.raises(InputError, match="no token"):
        engine.prefill(np.empty((1, 0), dtype=np.int64))


@pytest.mark.parametrize("mask", [[[1, 1, 0]], [[1, 0, 1]], [[0, 0, 0]]])
def test_only_left_padding_is_read(engine: OnnxEngine, mask: list[list[int]]) -> None:
    with pytest.raises(InputError, match="hides the end of a prompt or has a gap"):
        engine.prefill(np.asarray([[1, 2, 3]]), np.asarray(mask))


def test_a_mask_of_another_shape_is_refused(engine: OnnxEngine) -> None:
    with pytest.raises(InputError, match="shape"):
        engine.prefill(np.asarray([[1, 2, 3]]), np.asarray([[1, 1]]))


def test_a_stage_folder_serves_the_export_in_it(tmp_path: Path) -> None:
    write_graph(tmp_path / "onnx", history_model(WEIGHTS), external=True)
    engine = OnnxEngine.load(tmp_path, threads=1, provider="cpu")
    np.testing.assert_allclose(
        engine.logits(np.asarray([PROMPT]))[0], expected_logits(WEIGHTS, PROMPT), rtol=1e-5
    )


def test_float16_on_a_cpu_is_cautioned_against(engine: OnnxEngine) -> None:
    assert engine.caution is not None  # One of its layers caches float16.
    assert "float16 graph runs on a CPU" in engine.caution


def test_serving_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, roots_compress.runtime.onnx.engine as _; print({'torch', 'onnx'} & sys.modules.keys())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"
