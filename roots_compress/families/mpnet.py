"""MPNet: RoBERTa without token types, and with T5's additions to the scores by distance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder import classes, encoder_rules, read_encoder, write_encoder
from roots_compress.families.roberta import COPIES, HEADED, UNREAD, UNREAD_POSITIONS, roberta_head_rules
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import Shared, last_rows
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.positions import Relative
from roots_compress.models.spec import Layer, ModelSpec, Stack

ARCHITECTURES = classes("MPNet")
LAYER = {
    "attention.attn.q": "self_attn.q_proj",
    "attention.attn.k": "self_attn.k_proj",
    "attention.attn.v": "self_attn.v_proj",
    "attention.attn.o": "self_attn.o_proj",
    "attention.LayerNorm": "self_attn_stream_norm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "mlp_stream_norm",
}
BUCKETS = Relative().buckets
"""transformers counts with so many, whatever `relative_attention_num_buckets` says."""


def _with_distances(layer: Layer) -> Layer:
    attention, mlp = layer
    assert isinstance(attention.op, Attention)
    return changed(attention, op=changed(attention.op, relative=Relative())), mlp


def _read(switches: Switches) -> ModelSpec:
    switches.same("relative_attention_num_buckets", BUCKETS)
    spec = read_encoder(
        switches, ARCHITECTURES, token_types=False, unread_positions=UNREAD_POSITIONS, masked="gelu"
    )
    stack = Stack(layers=tuple(map(_with_distances, spec.layers)))
    return changed(spec, stacks={"encoder": stack})


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_encoder(spec, ARCHITECTURES, unread_positions=UNREAD_POSITIONS)
    del written["type_vocab_size"]
    return {**written, "relative_attention_num_buckets": BUCKETS}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec, layer=LAYER, positions=last_rows(UNREAD_POSITIONS))
    layers = range(len(spec.layers))
    yield Rule(
        "encoder.relative_attention_bias.weight",
        tuple(f"model.layers.{index}.self_attn.relative.weight" for index in layers),
        Shared(len(layers)),
    )
    yield from roberta_head_rules(spec)


MPNET = Family(
    "mpnet",
    "MPNetModel",
    _read,
    _write,
    _rules,
    prefix="mpnet.",
    headed=HEADED,
    copies=COPIES,
    ignored=UNREAD,
    variants=(
        {"architectures": ["MPNetForMaskedLM"], "pad_token_id": 1},
        {"architectures": ["MPNetForMaskedLM"], "pad_token_id": 1, "tie_word_embeddings": False},
        {"architectures": ["MPNetForSequenceClassification"], "pad_token_id": 1, "num_labels": 3},
        {"architectures": ["MPNetForTokenClassification"], "pad_token_id": 1, "num_labels": 5},
        {"architectures": ["MPNetModel"], "pad_token_id": 1, "num_attention_heads": 2},
    ),
)
