"""The specification of a model from scratch, torch-free."""

from __future__ import annotations

from typing import Any

from roots_compress.configs.train import ArchitectureConfig, SparseAttentionConfig
from roots_compress.families.encoder import EPS, encoder_spec
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import MaskedLmHead, Seq2SeqHead
from roots_compress.models.ops.positions import Relative
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Layer, ModelSpec, Norm, Stack
from roots_compress.models.version1 import Widths, spec_of


def architecture_spec(
    architecture: ArchitectureConfig, vocab_size: int, *, encoder: bool = False, start: int = 0
) -> ModelSpec:
    """Return the specification of an architecture, for a size of the vocabulary.

    Args:
        encoder: whether it is a masked language model of BERT's shape.
        start: the token with which a decoder after an encoder begins.
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
    layer = {key: fields.pop(key) for key in Widths.model_fields if key in fields}
    rope = {"rope_type": "default", "rope_theta": fields.pop("rope_theta")}
    encoder_layers = fields.pop("encoder_layers")
    relative = architecture.position == "relative"
    spec = spec_of(
        {
            **fields,
            "position": "rotary" if relative else architecture.position,
            "vocab_size": vocab_size,
            "layers": [layer] * fields.pop("num_layers"),
            "rope_parameters": None if architecture.position == "learned" else rope,
            "attention": _attention(architecture.attention),
        }
    )
    return spec if encoder_layers is None else _with_encoder(spec, encoder_layers, relative, start)


def _with_encoder(spec: ModelSpec, count: int, relative: bool, start: int) -> ModelSpec:
    """Return a decoder with an encoder before it, whose output each decoder layer reads."""
    attention, mlp = spec.layers[0]
    assert isinstance(attention.op, Attention)
    own = changed(attention.op, rope=None, relative=Relative()) if relative else attention.op
    cross = changed(own, rope=None, relative=None, qk_norm=None, causal=False, source="cross")

    def layer(*ops: Attention) -> Layer:
        return (*(Sublayer(op=op, pre_norm=attention.pre_norm) for op in ops), mlp)

    norm = spec.stack.final_norm
    return changed(
        spec,
        stacks={
            "encoder": Stack(layers=(layer(changed(own, causal=False)),) * count, final_norm=norm),
            "decoder": Stack(layers=(layer(own, cross),) * len(spec.layers), final_norm=norm),
        },
        head=Seq2SeqHead(start=start),
    )


def _attention(sparse: SparseAttentionConfig) -> dict[str, Any]:
    if sparse.kind == "top_m":
        return {"kind": "top_m", "top_m": sparse.top_m}
    if sparse.kind == "block":
        size = {} if sparse.block_size is None else {"block_size": sparse.block_size}
        return {"kind": "block", "num_blocks": sparse.num_blocks, **size}
    return {"kind": "dense"}
