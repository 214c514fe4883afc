"""The specification of a model from scratch, torch-free."""

from __future__ import annotations

from typing import Any

from roots_compress.configs.train import ArchitectureConfig, SparseAttentionConfig
from roots_compress.models.spec import ModelSpec
from roots_compress.models.version1 import LAYER_KEYS, spec_of


def architecture_spec(architecture: ArchitectureConfig, vocab_size: int) -> ModelSpec:
    """Return the specification of an architecture, with so many tokens in its vocabulary."""
    fields = architecture.model_dump()
    layer = {key: fields.pop(key) for key in LAYER_KEYS if key in fields}
    rope = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
    return spec_of(
        {
            **fields,
            "vocab_size": vocab_size,
            "layers": [layer] * fields.pop("num_layers"),
            "rope_parameters": rope if architecture.position == "rotary" else None,
            "attention": _attention(architecture.attention),
        }
    )


def _attention(sparse: SparseAttentionConfig) -> dict[str, Any]:
    if sparse.kind == "top_m":
        return {"kind": "top_m", "top_m": sparse.top_m}
    if sparse.kind == "block":
        size = {} if sparse.block_size is None else {"block_size": sparse.block_size}
        return {"kind": "block", "num_blocks": sparse.num_blocks, **size}
    return {"kind": "dense"}
