"""Decoders that read texts and write none: their last states make vectors, or give labels or a score.

The layers read a whole text at once, as an encoder's do. Each token still sees only those before it, unless
the family's configuration says otherwise. Nothing is written and nothing is cached, so such a model is an
encoder whose attention is causal.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder_head import read_head, written_head
from roots_compress.families.switches import Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.ops.heads import (
    ClassificationHead,
    EmbeddingHead,
    LmHead,
    MaskedLmHead,
    TextLabelHead,
)
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

LABELS = "ForSequenceClassification"
LAST = ClassificationHead(labels=2, pooling="last", activation=None, bias=False)
"""A decoder's classifier of texts, whatever labels it has: a matrix on the state of the last token."""
SCORE = Rule("score.weight", ("classifier.weight",))


def read_config(family: Family, switches: Switches) -> ModelSpec:
    """Return the specification that a configuration asks for, of a decoder that gives labels too.

    Raises:
        InputError: see `Family.read_config`; or a layer is for models that write text.
    """
    named = switches.architectures()
    if not family.writes_text or not named or not all(name.endswith(LABELS) for name in named):
        return family.read_config(switches)
    head = read_head(switches, {named[0]: "classification"}, masked=MaskedLmHead(), labelled=LAST)
    assert isinstance(head, TextLabelHead)
    switches.writes_text = True
    spec = family.read_config(switches)
    try:
        return as_text_encoder(spec, head)
    except ValueError as error:
        switches.refuse(f"architectures names {named[0]}, which gives labels, and the model cannot: {error}")


def written_config(family: Family, spec: ModelSpec) -> dict[str, Any]:
    """Return a family's configuration of a specification, as well as it can say it.

    Raises:
        ValueError: the specification is of something that the family never is.
    """
    head = spec.head
    if not family.writes_text or not isinstance(head, EmbeddingHead | TextLabelHead):
        return family.write(spec)
    written = family.write(changed(spec, stacks={"decoder": spec.stack}, head=LmHead(), tied=True))
    if isinstance(head, TextLabelHead):
        written |= written_head(head, {label_class(family): "classification"})
    return written


def label_class(family: Family) -> str:
    """Return the name of the class of transformers that gives labels with a decoder of the family."""
    if family.model_type == "gemma3_text":  # Without its last word it is the class that sees images.
        return f"Gemma3Text{LABELS}"
    return re.sub("(ForCausalLM|LMHeadModel)$", LABELS, family.architecture)


def tensor_rules(family: Family, spec: ModelSpec) -> Iterator[Rule]:
    """Yield the place of each tensor that a model of this specification has, its head's too."""
    yield from family.rules(spec)
    if family.writes_text and isinstance(spec.head, TextLabelHead):
        yield SCORE


def as_text_encoder(spec: ModelSpec, head: EmbeddingHead | TextLabelHead) -> ModelSpec:
    """Return the specification of a decoder whose last states a head reads.

    Raises:
        ValueError: a layer reads other tokens in a way that encoders do not.
    """
    if spec.embeddings.layer_inputs is not None:
        raise ValueError("per-layer embeddings are for models that write text")
    for place, op in spec.blocks():
        if fault := _unlike_encoders(op):
            raise ValueError(f"layer {place.layer} has {fault}, which is for models that write text")
    return changed(spec, stacks={"encoder": spec.stack}, head=head, tied=True)


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
