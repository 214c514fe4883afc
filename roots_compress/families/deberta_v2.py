"""DeBERTa v2 and v3: BERT whose scores add products of content and distance, in place of positions.

A source has one table of distances for all layers, and each layer's projections of it, which may be those of
its queries and keys. No text changes what they give together: each layer here has that, a vector of each head
for each distance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from roots_compress.families.base import Computed, Family, Rule
from roots_compress.families.bert import bert_head_rules
from roots_compress.families.encoder import classes, encoder_rules, read_encoder, write_encoder
from roots_compress.families.switches import ACTIVATIONS, Switches
from roots_compress.families.transforms import Tensor
from roots_compress.families.values import older_activation_name, shown
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import MaskedLmHead, TextLabelHead
from roots_compress.models.ops.mlp import Activation
from roots_compress.models.ops.positions import Disentangled
from roots_compress.models.spec import ModelSpec, Norm

ARCHITECTURES = classes("DebertaV2")
LAYER = {
    "attention.self.query_proj": "self_attn.q_proj",
    "attention.self.key_proj": "self_attn.k_proj",
    "attention.self.value_proj": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "attention.output.LayerNorm": "self_attn_stream_norm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "mlp_stream_norm",
}
POOLED: dict[str, Activation | Literal["tanh"]] = {**ACTIVATIONS, "tanh": "tanh"}
TYPES = {"c2p": "queries", "p2c": "keys"}
"""Who meets distances, by DeBERTa's names of it."""
OF_TRAINING = (
    "lm_predictions.lm_head.dense",
    "lm_predictions.lm_head.LayerNorm",
    "mask_predictions.dense",
    "mask_predictions.LayerNorm",
    "mask_predictions.classifier",
)
"""Modules of its heads of pretraining, which no class of transformers reads."""
TABLE, NORM = "encoder.rel_embeddings.weight", "encoder.LayerNorm"
PARTS = ("weight", "bias")
PROJECTIONS = {
    "query_distances": ("key_proj", "pos_key_proj"),
    "key_distances": ("query_proj", "pos_query_proj"),
}
"""What makes a layer's vectors for distances: its own projection (`share_att_key`), or another."""


def _read(switches: Switches) -> ModelSpec:
    switches.leave("cls_dropout", "pooler_dropout", "conv_act")
    if switches.take("conv_kernel_size", 0):
        switches.refuse("conv_kernel_size is above 0, and no block here convolves tokens")
    width, heads = switches.said("hidden_size", 0), switches.said("num_attention_heads", 1)
    for key, value in (("embedding_size", width), ("pooler_hidden_size", width)):
        switches.same(key, value)
    sized = isinstance(width, int) and isinstance(heads, int) and heads > 0
    switches.same("attention_head_size", *([width // heads] if sized else []))
    legacy = switches.flag("legacy", True)
    rows, longest = switches.said("type_vocab_size", 0), switches.said("max_position_embeddings", 512)
    kinds, disentangled = _distances(switches, longest)
    pooled = switches.take("pooler_hidden_act", "gelu")
    if not isinstance(pooled, str) or pooled not in POOLED:
        switches.refuse(f"pooler_hidden_act is {pooled!r:.60}; supported are {', '.join(POOLED)}")
    biased = switches.flag("position_biased_input", True)
    norm = Norm(kind="layer_norm", eps=switches.positive("layer_norm_eps", 1e-7))
    if not rows:
        switches.take("type_vocab_size")
    spec = read_encoder(switches, ARCHITECTURES, norm=norm, token_types=bool(rows), labels=POOLED[pooled])
    if isinstance(spec.head, MaskedLmHead) and not legacy:
        switches.refuse("legacy is false, and only the older head of hidden tokens is read")
    attention, mlp = spec.layers[0]
    assert isinstance(attention.op, Attention)
    # The product of query and key is divided as if the others were there, whether they are or not.
    scale = ((1 + kinds) * attention.op.head_dim) ** -0.5 if kinds else None
    attention = changed(attention, op=changed(attention.op, disentangled=disentangled, scale=scale))
    spec = spec.with_layers(((attention, mlp),) * len(spec.layers))
    return spec if biased else spec.with_embeddings(positions=None)


def _distances(switches: Switches, longest: Any) -> tuple[int, Disentangled | None]:
    """Take the keys of distances; return how many products with them there are, and what they are."""
    named = switches.take("pos_att_type")
    types = [each.strip() for each in named.lower().split("|")] if isinstance(named, str) else named or []
    if not isinstance(types, list) or not {*map(str, types)} <= TYPES.keys():
        switches.refuse(f"pos_att_type is {named!r:.60}; supported are {', '.join(TYPES)}")
    if not isinstance(normed := switches.take("norm_rel_ebd", "none"), str):
        switches.refuse(f"norm_rel_ebd is {shown(normed)}; it must be text, such as layer_norm or none")
    switches.flag("share_att_key", False)
    buckets = switches.take("position_buckets", -1)
    reach = switches.take("max_relative_positions", -1)
    if not (isinstance(buckets, int) and isinstance(reach, int)):
        switches.refuse("position_buckets and max_relative_positions must be whole numbers")
    reach = reach if reach >= 1 or not isinstance(longest, int) else longest
    if not switches.flag("relative_attention", False) or not types:
        return len({*types}), None
    return len({*types}), Disentangled(
        rows=2 * (buckets if buckets > 0 else reach),
        max_distance=reach if buckets > 0 else None,
        **{ours: theirs in types for theirs, ours in TYPES.items()},
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    written = write_encoder(spec, ARCHITECTURES)
    attention, distances = spec.attentions()[0], spec.attentions()[0].disentangled
    # Without distances, the factor of the scores tells how many products with them it counts.
    types = [*TYPES][: round(attention.factor**-2 / attention.head_dim) - 1]
    if distances is not None:
        types = [theirs for theirs, ours in TYPES.items() if getattr(distances, ours)]
    written |= {
        "max_position_embeddings": spec.max_positions,
        "type_vocab_size": spec.embeddings.token_types or 0,
        "position_biased_input": spec.embeddings.positions is not None,
        "relative_attention": distances is not None,
        "pos_att_type": types,
        "share_att_key": False,
        "norm_rel_ebd": "none",
        "pooler_hidden_size": spec.width,
        "attention_head_size": attention.head_dim,
    }
    if distances is not None:
        if distances.rows > spec.width:
            raise ValueError(
                f"its {distances.rows} rows of distances are more than its width {spec.width}, so that they "
                "cannot be told apart in one table for all layers"
            )
        side = distances.rows // 2
        logarithmic = distances.max_distance is not None
        written["position_buckets"] = side if logarithmic else -1
        written["max_relative_positions"] = distances.max_distance if logarithmic else side
    if isinstance(spec.head, TextLabelHead) and spec.head.activation is not None:
        act = spec.head.activation
        written["pooler_hidden_act"] = older_activation_name(act)
    return written


def _computed(spec: ModelSpec, config: Mapping[str, Any]) -> list[Computed]:
    found = []
    is_normed = "layer_norm" in map(str.strip, config.get("norm_rel_ebd", "none").lower().split("|"))
    norms, shares = [NORM] if is_normed else [], config.get("share_att_key", False)
    for index, op in enumerate(spec.attentions()):
        if op.disentangled is None:
            continue
        for table in op.disentangled.tables:
            own, other = (f"encoder.layer.{index}.attention.self.{name}" for name in PROJECTIONS[table])
            module = own if shares else other
            norm = spec.embeddings.norm or Norm(kind="layer_norm")
            found.append(
                Computed(
                    sources=(TABLE, *(f"{each}.{part}" for each in (*norms, module) for part in PARTS)),
                    targets=(f"model.layers.{index}.self_attn.{table}.weight",),
                    make=partial(_projected, module, norm.eps if is_normed else None),
                    write=partial(_written, other, spec.width),
                )
            )
    return found


def _projected(module: str, eps: float | None, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return what a layer makes of the table of distances; a norm precedes it where there is an epsilon."""
    import torch.nn.functional as F

    table_RW = tensors[TABLE].float()
    if eps is not None:
        gain, bias = (tensors[f"{NORM}.{part}"].float() for part in PARTS)
        table_RW = F.layer_norm(table_RW, table_RW.shape[-1:], gain, bias, eps)
    return [F.linear(table_RW, tensors[f"{module}.weight"].float(), tensors[f"{module}.bias"].float())]


def _written(other: str, width: int, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return a table with a channel for each distance, and the projection that makes the vectors of it."""
    import torch
    import torch.nn.functional as F

    (vectors_RX,) = tensors
    rows = len(vectors_RX)
    return {
        TABLE: torch.eye(rows, width, dtype=vectors_RX.dtype),
        f"{other}.weight": F.pad(vectors_RX.T, (0, width - rows)).contiguous(),
        f"{other}.bias": vectors_RX.new_zeros(vectors_RX.shape[1]),
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield from encoder_rules(spec, layer=LAYER)
    yield from bert_head_rules(spec)


MASKED, LABELS, TAGS, VECTORS = (
    {"architectures": [name], "relative_attention": True, "pos_att_type": "p2c|c2p"} for name in ARCHITECTURES
)
V3 = {
    "position_biased_input": False,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}
DEBERTA_V2 = Family(
    "deberta-v2",
    "DebertaV2Model",
    _read,
    _write,
    _rules,
    prefix="deberta.",
    headed=("cls.", "pooler.", "classifier."),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=(
        "embeddings.position_ids",
        "embeddings.position_embeddings.weight",
        "cls.predictions.bias",
        "lm_predictions.lm_head.bias",
        *(f"{name}.{part}" for name in OF_TRAINING for part in PARTS),
    ),
    variants=(
        {**MASKED, **V3},
        {**MASKED, **V3, "max_relative_positions": 6, "position_buckets": 6, "tie_word_embeddings": False},
        {**MASKED, **V3, "share_att_key": False, "norm_rel_ebd": "none", "position_biased_input": True},
        {**LABELS, **V3, "num_labels": 3, "pos_att_type": "c2p"},
        {**LABELS, **V3, "num_labels": 1, "pos_att_type": ["p2c"], "pooler_hidden_act": "tanh"},
        {**TAGS, **V3, "num_labels": 5, "type_vocab_size": 2, "hidden_act": "relu"},
        {**VECTORS, "max_relative_positions": 5, "num_attention_heads": 2},
        {**VECTORS, **V3, "layer_norm_eps": 0.01, "position_buckets": 16, "num_hidden_layers": 1},
        {**LABELS, "relative_attention": False, "hidden_act": "gelu_new", "intermediate_size": 20},
        {**TAGS, "relative_attention": False, "pos_att_type": None, "num_attention_heads": 1},
    ),
    computed=_computed,
)
