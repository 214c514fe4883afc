"""A text that grows past the length where LongRoPE's factors change is read anew."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.data.conversations import Responses
from roots_compress.data.windows import EvaluationWindows
from roots_compress.export.exporter import write_graph
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.ops.attention import Attention, LongRopeScaling, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.spec import ModelSpec
from roots_compress.runtime.generate import generate
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.onnx.graph_config import renewed_after
from roots_compress.runtime.protocol import LanguageModel
from roots_compress.runtime.torch_engine import TorchEngine
from roots_compress.tasks.figures.perplexity import response_predictions
from roots_compress.tasks.figures.predictions import negative_log_likelihood, score
from tests.tasks.cached import cached_perplexity
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


def test_transformers_generates_the_same(model: RootsForCausalLM) -> None:
    prompt = tiny_tokens(1, 12)
    ours = [step[0] for step in generate(TorchEngine(model), prompt.tolist(), max_new_tokens=8)]
    served: Any = model
    mask = torch.ones_like(prompt)
    theirs = served.generate(prompt, attention_mask=mask, max_new_tokens=8, do_sample=False, eos_token_id=-1)
    assert theirs[0, 12:].tolist() == ours


@pytest.mark.parametrize(
    "config",
    [
        {"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": LENGTH},
        {"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": LENGTH}},
    ],
    ids=["older", "newer"],
)
def test_the_length_of_a_foreign_graph_is_found(config: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))
    assert renewed_after(path) == LENGTH


def test_a_conversation_is_judged_the_same_beside_a_longer_one(engine: LanguageModel) -> None:
    tokens = tiny_tokens(2, 24).numpy()
    scored = np.zeros((2, 24), np.bool_)
    scored[0, 4:10] = scored[1, 4:24] = True
    both = Responses(
        input_ids=tokens, bos=True, text_bytes=1, text_sha256="", tokenizer_sha256="", scored=scored
    )
    alone = replace(both, input_ids=tokens[:1, :10], scored=scored[:1, :10])
    nats = [score(response_predictions(engine, each), count=2).nats[:6] for each in (both, alone)]
    np.testing.assert_allclose(nats[0], nats[1], rtol=1e-4)


def test_perplexity_through_a_cache_reads_the_text_anew(
    engine: LanguageModel, model: RootsForCausalLM
) -> None:
    text = tiny_tokens(1, LENGTH + 4).numpy()
    step = TorchEngine(model).prefill(text[:, :1])
    logits = [step.logits]
    for end in range(2, LENGTH + 4):
        logits.append(TorchEngine(model).prefill(text[:, :end]).logits)
    expected = negative_log_likelihood(np.concatenate(logits), text[0, 1:])
    windows = EvaluationWindows(text, bos=False, text_bytes=1, text_sha256="", tokenizer_sha256="")
    assert cached_perplexity(engine, windows).nll_nats == pytest.approx(expected, rel=1e-4)


def test_a_long_prompt_is_read_as_one(engine: LanguageModel, model: RootsForCausalLM) -> None:
    for tokens in (LENGTH, LENGTH + 1, 30):
        prompt = tiny_tokens(1, tokens).numpy()
        expected = TorchEngine(model).logits(prompt)[:, -1]
        np.testing.assert_allclose(engine.prefill(prompt).logits, expected, atol=1e-4)
