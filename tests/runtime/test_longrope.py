"""A text that grows past the length where LongRoPE's factors change is read anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from roots_compress.export.exporter import write_graph
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.attention import Attention, LongRopeScaling, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec
from roots_compress.runtime.generate import generate
from roots_compress.runtime.onnx_engine import OnnxEngine
from roots_compress.runtime.protocol import LanguageModel
from roots_compress.runtime.torch_engine import TorchEngine
from tests.tiny import tiny_config, tiny_layer, tiny_model, tiny_tokens

LENGTH = 16


def longrope() -> ModelSpec:
    """Return a tiny decoder whose factors change after 16 tokens, with heads that are fused."""
    spec = tiny_config(layers=[tiny_layer(head_dim=16)] * 2).spec
    scaling = LongRopeScaling(
        short_factor=(1.0,) * 8,
        long_factor=(7.0,) * 8,
        original_max_position_embeddings=LENGTH,
        attention_factor=1.2,
    )
    rope = Rope(theta=100.0, scaling=scaling)
    for place, op in list(spec.blocks()):
        if isinstance(op, Attention):
            spec = spec.with_op(place, changed(op, rope=rope))
    return spec


@pytest.fixture(scope="module")
def model() -> RootsForCausalLM:
    return tiny_model(spec=longrope())


@pytest.fixture(params=["torch", "onnx"])
def engine(model: RootsForCausalLM, tmp_path: Path, request: pytest.FixtureRequest) -> LanguageModel:
    if request.param == "torch":
        return TorchEngine(model)
    graph, _ = write_graph(model, tmp_path)
    return OnnxEngine.open(graph, provider="cpu", prefill_chunk=8)


def test_tokens_are_those_of_the_whole_text(engine: LanguageModel, model: RootsForCausalLM) -> None:
    prompts = tiny_tokens(2, 12).tolist()
    prompts[1] = prompts[1][:9]
    assert engine.renewed_after == LENGTH
    rows = [list(prompt) for prompt in prompts]
    for step in generate(engine, prompts, max_new_tokens=8):
        for row, token in zip(rows, step, strict=True):
            assert token is not None
            row.append(token)
    whole = TorchEngine(model)
    text = np.array([rows[0]])
    for end in range(12, 20):
        assert rows[0][end] == whole.logits(text[:, :end])[0, -1].argmax()


def test_a_long_prompt_is_read_as_one(engine: LanguageModel, model: RootsForCausalLM) -> None:
    for tokens in (LENGTH, LENGTH + 1, 30):
        prompt = tiny_tokens(1, tokens).numpy()
        expected = TorchEngine(model).logits(prompt)[:, -1]
        np.testing.assert_allclose(engine.prefill(prompt).logits, expected, atol=1e-4)
