"""The torch engine answers as the model's plain forward does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from roots_compress.errors import InputError
from roots_compress.runtime.prompts import left_pad
from roots_compress.runtime.torch_engine import TorchEngine
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "per_layer_widths": {"layers": [tiny_layer(), tiny_layer(num_attention_heads=2, num_key_value_heads=1)]},
    "learned_positions": {"position": "learned", "norm": "layer_norm"},
    "top_m": {"attention": {"kind": "top_m", "top_m": 5}},
}


@pytest.fixture(params=VARIANTS)
def engine(request: pytest.FixtureRequest) -> TorchEngine:
    return TorchEngine(tiny_model(**VARIANTS[request.param]))


def test_prefill_and_decode_equal_the_full_forward(engine: TorchEngine) -> None:
    tokens = tiny_tokens(batch=2, tokens=12).numpy()
    full = engine.logits(tokens)
    step = engine.prefill(tokens[:, :7])
    np.testing.assert_allclose(step.logits, full[:, 6], atol=1e-4)
    for position in range(7, 12):
        step = engine.decode(tokens[:, position], step.cache)
        np.testing.assert_allclose(step.logits, full[:, position], atol=1e-4)


def test_a_ragged_batch_answers_as_its_rows_do_alone(engine: TorchEngine) -> None:
    prompts = [tiny_tokens(1, length, seed=length)[0].tolist() for length in (9, 4, 1)]
    step = engine.prefill(*left_pad(prompts))
    step = engine.decode(np.asarray([5, 6, 7]), step.cache)
    for row, (prompt, token) in enumerate(zip(prompts, (5, 6, 7), strict=True)):
        alone = engine.logits(np.asarray([[*prompt, token]]))
        np.testing.assert_allclose(step.logits[row], alone[0, -1], atol=1e-4)


def test_logits_are_the_model_s_in_float32() -> None:
    model = tiny_model()
    tokens = tiny_tokens()
    with torch.no_grad():
        expected = model(tokens).logits.numpy()
    logits = TorchEngine(model).logits(tokens.numpy())
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert TorchEngine(tiny_model().half()).logits(tokens.numpy()).dtype == np.float32


def test_a_context_beyond_the_maximum_is_refused() -> None:
    engine = TorchEngine(tiny_model(max_position_embeddings=8))
    step = engine.prefill(tiny_tokens(1, 8).numpy())
    with pytest.raises(InputError, match="9 tokens of context are more than the model's 8"):
        engine.decode(np.asarray([3]), step.cache)
    with pytest.raises(InputError, match="9 tokens of context are more than the model's 8"):
        engine.logits(tiny_tokens(1, 9).numpy())
