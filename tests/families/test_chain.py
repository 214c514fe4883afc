"""The newer families go through the whole chain: a student, cuts on each axis they have, int8 and int4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chains import CALIBRATION, DISTILL, QUANTIZE, carry_out, recipe, write_text
from tests.families.sources import save_source, source_model

HEADS = {"head_dim": 16, "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
"""Layers to spare, and heads that ONNX Runtime's fused attention takes."""
SLIDING = {"layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 9}
FAMILIES: dict[str, dict[str, Any]] = {
    "gemma2": {**HEADS, **SLIDING},
    "gemma3_text": {**HEADS, **SLIDING},
    "phi3": {"hidden_size": 64, **HEADS},
    "qwen3_moe": {**HEADS, "norm_topk_prob": True},
}
AXES: dict[str, float] = {"head_ratio": 0.5, "query_ratio": 0.5, "layer_ratio": 0.5}


def prune_of(family: str) -> dict[str, Any]:
    """Return a cut on every axis of a family's blocks, and of layers."""
    mine = {"expert_ratio": 0.3} if family == "qwen3_moe" else {"ratio": 0.25}
    return {"kind": "prune", "own_windows": 2, "multiple_of": 8, "calibration": CALIBRATION, **AXES, **mine}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_chain(family: str, tmp_path: Path) -> None:
    model = save_source(source_model(family, **FAMILIES[family]), tmp_path / "source")
    write_text(tmp_path / "text")
    int4 = {**QUANTIZE, "scheme": "int4", "group_size": 16, "name": "int4"}
    del int4["products"]
    wanted = recipe(tmp_path / "text", DISTILL, prune_of(family), QUANTIZE, model=str(model))
    metrics = carry_out(wanted, tmp_path / "chain")
    assert [row.kind for row in metrics.stages] == ["baseline", "distill", "prune", "quantize"]
    sizes = [row.metrics.bytes for row in metrics.stages]
    assert sizes == sorted(sizes, reverse=True)
    again = recipe(tmp_path / "text", int4, model=str(model))
    packed = carry_out(again, tmp_path / "int4")
    assert packed.stages[1].metrics.bytes < packed.stages[0].metrics.bytes / 2
