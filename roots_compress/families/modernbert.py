"""ModernBERT: norms before gated blocks, windows to both sides, and two kinds of rotary positions.

The first attention reads what the embedding's norm gives: it has no norm of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.decoder_config import activation_name, first_blocks, layer_types
from roots_compress.families.decoder_tensors import GATE_UP, QKV, decoder_rules, norm_rules
from roots_compress.families.encoder import classes, linear_rules
from roots_compress.families.encoder_head import read_head, written_head
from roots_compress.families.rope import FULL, SLIDING, ropes_by_type, written_ropes
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import COPY
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import (
    ClassificationHead,
    EmbeddingHead,
    LabelHead,
    MaskedLmHead,
    Pooling,
    TextLabelHead,
    TokenClassificationHead,
)
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, Head, Layer, ModelSpec, Norm, Stack

ARCHITECTURES = classes("ModernBert")
ROPES = {FULL: ("global_rope_theta", 160_000.0), SLIDING: ("local_rope_theta", 10_000.0)}
"""Where configurations before transformers 5 have the base of the positions, and what it is without."""
OF_TRAINING = (
    "deterministic_flash_attn", "embedding_dropout", "initializer_cutoff_factor", "mlp_dropout",
    "reference_compile", "repad_logits_with_grad", "sparse_pred_ignore_index", "sparse_prediction",
)  # fmt: skip
UNREAD = ("layer_norm_eps", "position_embedding_type")
"""Keys of published files that no layer of transformers' class reads."""
POOLINGS: dict[str, Pooling] = {"cls": "first", "mean": "mean"}


def _read(switches: Switches) -> ModelSpec:
    switches.leave(*OF_TRAINING, *UNREAD)
    switches.same("rope_scaling")
    switches.same("decoder_bias", True)
    width, heads = switches.width_and_heads()
    count, longest = (
        switches.number("num_hidden_layers", most=MOST_LAYERS),
        switches.number("max_position_embeddings", 8192),
    )
    every = switches.number("global_attn_every_n_layers", 3)
    # transformers' window of 128 tokens has 64 to each side of a token, and the token itself.
    reach = switches.number("local_attention", 128) // 2 + 1
    windows = switches.typed_windows(reach, count, [index % every > 0 for index in range(count)])
    ropes = ropes_by_type(switches, longest, ROPES)
    norm = Norm(
        kind="layer_norm",
        eps=switches.positive("norm_eps", 1e-5),
        bias=switches.flag("norm_bias", False),
    )
    bias = switches.flag("attention_bias", False)
    mlp = Mlp(
        channels=switches.number("intermediate_size"),
        activation=switches.activation("hidden_activation", "gelu"),
        bias=switches.flag("mlp_bias", False),
    )

    def layer(index: int, window: int | None) -> Layer:
        attention = Attention(
            heads=heads,
            kv_heads=heads,
            head_dim=width // heads,
            rope=ropes[FULL if window is None else SLIDING],
            window=window,
            causal=False,
            bias=bias,
            output_bias=bias,
        )
        return Sublayer(op=attention, pre_norm=norm if index else None), Sublayer(op=mlp, pre_norm=norm)

    return ModelSpec(
        stacks={"encoder": Stack(layers=tuple(map(layer, range(count), windows)), final_norm=norm)},
        embeddings=Embeddings(vocabulary=switches.number("vocab_size"), width=width, norm=norm),
        head=_read_head(switches, norm),
        tied=switches.flag("tie_word_embeddings", True),
        max_positions=longest,
    )


def _read_head(switches: Switches, norm: Norm) -> Head:
    pooling = switches.take("classifier_pooling", "cls")
    if not isinstance(pooling, str) or pooling not in POOLINGS:
        switches.refuse(f"classifier_pooling is {pooling!r:.100}; it must be one of {', '.join(POOLINGS)}")
    fields: dict[str, Any] = {
        "activation": switches.activation("classifier_activation", "gelu"),
        "eps": norm.eps,
        "dense_bias": switches.flag("classifier_bias", False),
        "norm_bias": norm.bias,
    }
    return read_head(
        switches,
        ARCHITECTURES,
        masked=MaskedLmHead(**fields),
        labelled=ClassificationHead(labels=2, pooling=POOLINGS[pooling], **fields),
        tagged=TokenClassificationHead(labels=2, **fields),
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = first_blocks(spec)
    attentions, norm, head = spec.attentions(), spec.embeddings.norm or Norm(), spec.head
    window = next((each.window for each in attentions if each.window is not None), 65)
    written: dict[str, Any] = {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "intermediate_size": mlp.channels,
        "hidden_activation": activation_name(mlp.activation),
        "max_position_embeddings": spec.max_positions,
        "norm_eps": norm.eps,
        "norm_bias": norm.bias,
        "attention_bias": attention.bias,
        "mlp_bias": mlp.bias,
        "layer_types": layer_types(attentions),
        "local_attention": max(1, 2 * (window - 1)),
        "rope_parameters": written_ropes(attentions, ROPES),
        "tie_word_embeddings": spec.tied,
        **written_head(head, ARCHITECTURES),
    }
    if isinstance(head, MaskedLmHead | LabelHead):
        if head.activation is None or head.activation == "tanh":
            raise ValueError("its head has no dense layer with an activation that the family has")
        written["classifier_activation"] = activation_name(head.activation)
        written["classifier_bias"] = head.dense_bias
    if isinstance(head, TextLabelHead):
        written["classifier_pooling"] = {ours: theirs for theirs, ours in POOLINGS.items()}[head.pooling]
    return written


NAMES = {
    "self_attn_pre_norm": "attn_norm",
    "mlp_pre_norm": "mlp_norm",
    **dict.fromkeys(QKV, "attn.Wqkv"),
    "self_attn.o_proj": "attn.Wo",
    **dict.fromkeys(GATE_UP, "mlp.Wi"),
    "mlp.down_proj": "mlp.Wo",
}
OUTER = {"embed_tokens": "embeddings.tok_embeddings", "norm": "final_norm", "lm_head": "decoder"}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    gives_vectors, norm = isinstance(spec.head, EmbeddingHead), spec.embeddings.norm or Norm()
    for rule in decoder_rules(spec, names=NAMES, outer=OUTER):
        if not gives_vectors or rule.targets != ("lm_head.weight",):
            yield rule
    yield from norm_rules("embeddings.norm", "model.embed_norm", norm, COPY)
    if gives_vectors:
        return
    ours = "transform." if isinstance(spec.head, MaskedLmHead) else ""
    yield from norm_rules("head.norm", f"{ours}norm", norm, COPY)
    yield from linear_rules("head.dense", f"{ours}dense")
    yield from linear_rules("classifier", "classifier")
    yield Rule("decoder.bias", ("transform.bias",))


LINEAR = {
    FULL: {"rope_type": "linear", "factor": 4.0, "rope_theta": 1000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 100.0},
}
MASKED, LABELS, TAGS, VECTORS = ({"architectures": [name]} for name in ARCHITECTURES)
MODERNBERT = Family(
    "modernbert",
    "ModernBertModel",
    _read,
    _write,
    _rules,
    headed=("head.", "decoder.", "classifier."),
    variants=(
        {**MASKED, "local_attention": 6, "num_hidden_layers": 4},
        {**MASKED, "hidden_activation": "relu", "classifier_activation": "silu", "classifier_bias": True},
        {**MASKED, "norm_bias": True, "attention_bias": True, "mlp_bias": True, "local_attention": 9},
        {**MASKED, "tie_word_embeddings": False, "rope_parameters": LINEAR, "local_attention": 8},
        {**LABELS, "num_labels": 3, "layer_types": [SLIDING, FULL], "local_attention": 4},
        {**TAGS, "num_labels": 5, "local_attention": 4},
        {**LABELS, "classifier_pooling": "mean", "norm_bias": True, "norm_eps": 0.01},
        {**VECTORS, "intermediate_size": 20, "num_attention_heads": 1, "layer_types": [FULL, FULL]},
        {**VECTORS, "layer_types": [SLIDING, SLIDING], "local_attention": 1, "num_attention_heads": 2},
    ),
)
