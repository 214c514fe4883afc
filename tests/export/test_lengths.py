"""Every format at the shortest and the longest text, prompts cut at random places, ragged batches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from roots_compress.export.exporter import save_graph
from roots_compress.export.graph import build_graph
from roots_compress.models.quantized import Format
from roots_compress.runtime.onnx.engine import OnnxEngine
from tests.export.quantized import tiny_quantized, with_int8_cache
from tests.tiny import tiny_layer, tiny_model, tiny_tokens

LONGEST = 32
LENGTHS = (1, 7, LONGEST)


@pytest.mark.parametrize("form", ["fused", "portable", "int8 cache"])
@pytest.mark.parametrize("weight_format", [None, "w8a8", "w8", "w4"])
def test_prompts_of_all_lengths_cut_anywhere(tmp_path: Path, weight_format: Format | None, form: str) -> None:
    layers = [tiny_layer(head_dim=16), tiny_layer(head_dim=16, num_key_value_heads=1, sliding_window=9)]
    sizes: dict[str, Any] = {"layers": layers, "max_position_embeddings": LONGEST}
    model = tiny_quantized(weight_format, **sizes) if weight_format else tiny_model(**sizes)
    model = with_int8_cache(model) if form == "int8 cache" else model
    model.config.save_pretrained(tmp_path)
    graph = save_graph(build_graph(model, portable=form == "portable"), tmp_path)
    engine = OnnxEngine.open(graph, threads=1, provider="cpu")
    input_ids, mask = (
        tiny_tokens(len(LENGTHS), LONGEST),
        torch.zeros(len(LENGTHS), LONGEST, dtype=torch.int64),
    )
    for row, length in enumerate(LENGTHS):
        mask[row, -length:] = 1
    batches = [(input_ids[:1, :length], mask[-1:, :length]) for length in LENGTHS]
    draw = random.Random(0)
    for ids_BT, mask_BT in [*batches, (input_ids, mask)]:
        with torch.no_grad():
            expected_BTV = model(input_ids=ids_BT, attention_mask=mask_BT).logits.numpy()
        tokens, real_BT = ids_BT.numpy(), mask_BT.numpy()
        # Every row of a batch has a token in the prompt.
        first = tokens.shape[1] - int(real_BT.sum(axis=1).min()) + 1
        for split in {first, draw.randint(first, tokens.shape[1]), tokens.shape[1]}:
            prompt, prompt_mask = tokens[:, :split], real_BT[:, :split]
            seen = prompt_mask.astype(bool)
            agree(engine.logits(prompt, prompt_mask)[seen], expected_BTV[:, :split][seen], weight_format)
            step = engine.prefill(prompt, prompt_mask)
            for position in range(split, tokens.shape[1]):
                step = engine.decode(tokens[:, position], step.cache)
                agree(step.logits, expected_BTV[:, position], weight_format)


def agree(actual: NDArray[np.float32], expected: NDArray[np.float32], weight_format: Format | None) -> None:
    """Compare logits: all of them in floats; nearly all where an input close to a tie may round otherwise."""
    close = np.isclose(actual, expected, rtol=1e-3, atol=1e-3).mean()
    assert close == 1 if weight_format is None else close > 0.8
