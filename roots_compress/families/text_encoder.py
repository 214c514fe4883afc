"""Decoders that make vectors of texts: their layers read a whole text at once, as an encoder's do.

Each token still sees only those before it, unless the family's configuration says otherwise. Nothing is
written and nothing is cached, so such a model is an encoder whose attention is causal.
"""

from __future__ import annotations

from typing import Any

from roots_compress.families.base import Family
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.ops.heads import EmbeddingHead, LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec


def as_text_encoder(spec: ModelSpec, head: EmbeddingHead) -> ModelSpec:
    """Return the specification of a decoder whose last states make vectors.

    Raises:
        ValueError: a layer reads other tokens in a way that encoders do not.
    """
    if spec.embeddings.layer_inputs is not None:
        raise ValueError("per-layer embeddings are for models that write text")
    for place, op in spec.blocks():
        if fault := _unlike_encoders(op):
            raise ValueError(f"layer {place.layer} has {fault}, which is for models that write text")
    return changed(spec, stacks={"encoder": spec.stack}, head=head, tied=True)


def as_decoder(spec: ModelSpec) -> ModelSpec:
    """Return the specification of a decoder with the layers of a model that makes vectors."""
    return changed(spec, stacks={"decoder": spec.stack}, head=LmHead(), tied=True)


def written_config(family: Family, spec: ModelSpec) -> dict[str, Any]:
    """Return a family's configuration of a specification, as well as it can say it.

    Raises:
        ValueError: the specification is of something that the family never is.
    """
    makes_vectors = isinstance(spec.head, EmbeddingHead)
    return family.write(as_decoder(spec) if makes_vectors and family.writes_text else spec)


def _unlike_encoders(op: OpSpec) -> str | None:
    if isinstance(op, Mlp | Moe):
        return None
    if not isinstance(op, Attention):
        return f"a block of the kind {op.kind}"
    norm = op.qk_norm
    found = {
        "sparse attention": op.sparse,
        "sinks": op.sinks,
        "a gate on its attention": op.gated,
        "keys and values of a latent vector": op.latent,
        "keys that layers share": op.sharing,
        "keys as values": op.keys_as_values,
        "norms after positions, or of values": norm is not None and (norm.after_rope or norm.values),
    }
    return next((words for words, present in found.items() if present), None)
