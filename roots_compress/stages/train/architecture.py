"""The specification of a model from scratch, torch-free."""

from __future__ import annotations

from typing import Any

from roots_compress.configs.train import ArchitectureConfig, SparseAttentionConfig
from roots_compress.families.encoder import EPS, encoder_spec
from roots_compress.models.ops.heads import MaskedLmHead
from roots_compress.models.spec import ModelSpec, Norm
from roots_compress.models.version1 import LAYER_KEYS, spec_of


def architecture_spec(
    architecture: ArchitectureConfig, vocab_size: int, *, encoder: bool = False
) -> ModelSpec:
    """Return the specification of an architecture, with so many tokens in its vocabulary.

    An encoder is a masked language model of BERT's shape.
    """
    if encoder:
        return encoder_spec(
            vocabulary=vocab_size,
            width=architecture.hidden_size,
            layers=architecture.num_layers,
            heads=architecture.num_attention_heads,
            channels=architecture.intermediate_size,
            activation="gelu",
            norm=Norm(kind="layer_norm", eps=EPS),
            positions=architecture.max_position_embeddings,
            token_types=2,
            head=MaskedLmHead(activation="gelu", eps=EPS),
            tied=True,
        )
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
