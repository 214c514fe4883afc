"""BERT, and what is stored as one: MiniLM. Norms after each addition, learned positions, token types.

What the model is for is told by `architectures`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import ClassificationHead, EmbeddingHead, MaskedLmHead
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.spec import Embeddings, Head, ModelSpec, Norm, Stack, Sublayer

ARCHITECTURES = {
    "BertForMaskedLM": "masked_lm",
    "BertForPreTraining": "masked_lm",
    "BertForSequenceClassification": "classification",
    "BertModel": "embedding",
}


def encoder_spec(
    *,
    vocabulary: int,
    width: int,
    layers: int,
    heads: int,
    channels: int,
    activation: Activation,
    norm: Norm,
    positions: int,
    token_types: int | None,
    head: Head,
    tied: bool,
) -> ModelSpec:
    """Return an encoder of alike layers with a norm after each addition to the stream."""
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=width // heads, causal=False, bias=True, output_bias=True
    )
    mlp = Mlp(channels=channels, activation=activation, gated=False, bias=True)
    layer = (Sublayer(op=attention, stream_norm=norm), Sublayer(op=mlp, stream_norm=norm))
    return ModelSpec(
        stacks={"encoder": Stack(layers=(layer,) * layers)},
        embeddings=Embeddings(
            vocabulary=vocabulary, width=width, positions=positions, token_types=token_types, norm=norm
        ),
        head=head,
        tied=tied,
        max_positions=positions,
    )


def read_head(switches: Switches, kinds: dict[str, str], activation: Activation, norm: Norm) -> Head:
    """Return what a model ends with, by its class.

    Args:
        switches: the configuration.
        kinds: the family's classes, and what each is for.
        activation: of the layers.
        norm: of the layers.
    """
    architectures = switches.architectures() or [next(reversed(kinds))]
    known = [kinds[name] for name in architectures if name in kinds]
    if not known:
        switches.refuse(f"architectures names {', '.join(architectures)}; supported are {', '.join(kinds)}")
    if known[0] == "masked_lm":
        return MaskedLmHead(activation=activation, eps=norm.eps)
    if known[0] == "classification":
        if switches.problem() not in (None, "single_label_classification"):
            switches.refuse("problem_type must be single_label_classification")
        labels, names = switches.labels()
        return ClassificationHead(labels=labels, names=names)
    return EmbeddingHead()


def _read(switches: Switches) -> ModelSpec:
    width, heads = switches.number("hidden_size"), switches.number("num_attention_heads")
    if width % heads:
        switches.refuse(f"hidden_size {width} is not a multiple of num_attention_heads {heads}")
    norm = Norm(kind="layer_norm", eps=switches.positive("layer_norm_eps", 1e-12))
    activation = switches.activation("hidden_act", "gelu")
    switches.same("position_embedding_type", "absolute")
    for dropout in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
        switches.take(dropout)
    return encoder_spec(
        vocabulary=switches.number("vocab_size"),
        width=width,
        layers=switches.number("num_hidden_layers", most=MOST_LAYERS),
        heads=heads,
        channels=switches.number("intermediate_size"),
        activation=activation,
        norm=norm,
        positions=switches.number("max_position_embeddings", 512),
        token_types=switches.number("type_vocab_size", 2),
        head=read_head(switches, ARCHITECTURES, activation, norm),
        tied=switches.flag("tie_word_embeddings", True),
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = (sublayer.op for sublayer in spec.layers[0])
    norm = spec.embeddings.norm or Norm()
    if not isinstance(attention, Attention) or not isinstance(mlp, Mlp):
        raise ValueError("its layers are not attention followed by a feed-forward block")
    kinds = {kind: name for name, kind in reversed(ARCHITECTURES.items())}
    written: dict[str, Any] = {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "intermediate_size": mlp.channels,
        "hidden_act": "gelu_new" if mlp.activation == "gelu_tanh" else mlp.activation,
        "max_position_embeddings": spec.max_positions,
        "type_vocab_size": spec.embeddings.token_types,
        "layer_norm_eps": norm.eps,
        "tie_word_embeddings": spec.tied,
        "architectures": [kinds.get(spec.head.kind, "BertModel")],
    }
    if isinstance(spec.head, ClassificationHead):
        names = spec.head.label_names
        written["id2label"] = {str(number): name for number, name in enumerate(names)}
        written["label2id"] = {name: number for number, name in enumerate(names)}
    return written


def linear_rules(source: str, target: str) -> Iterator[Rule]:
    """Yield the rules of a module that is stored as ours, its weight and its bias."""
    return (Rule(f"{source}.{part}", (f"{target}.{part}",)) for part in ("weight", "bias"))


LAYER = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "attention.output.LayerNorm": "self_attn_stream_norm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "mlp_stream_norm",
}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield Rule("embeddings.word_embeddings.weight", ("model.embed_tokens.weight",))
    yield Rule("embeddings.position_embeddings.weight", ("model.embed_positions.weight",))
    yield Rule("embeddings.token_type_embeddings.weight", ("model.embed_token_types.weight",))
    yield from linear_rules("embeddings.LayerNorm", "model.embed_norm")
    for index in range(len(spec.layers)):
        for theirs, ours in LAYER.items():
            yield from linear_rules(f"encoder.layer.{index}.{theirs}", f"model.layers.{index}.{ours}")
    if isinstance(spec.head, MaskedLmHead):
        yield from linear_rules("cls.predictions.transform.dense", "transform.dense")
        yield from linear_rules("cls.predictions.transform.LayerNorm", "transform.norm")
        # The bias is stored twice; of matrices that are not tied the decoder's own is read.
        bias = "cls.predictions.bias" if spec.tied else "cls.predictions.decoder.bias"
        yield Rule(bias, ("transform.bias",))
        yield Rule("cls.predictions.decoder.weight", ("lm_head.weight",))
    if isinstance(spec.head, ClassificationHead):
        yield from linear_rules("pooler.dense", "dense")
        yield from linear_rules("classifier", "classifier")


UNREAD = (
    "embeddings.position_ids",
    "cls.predictions.bias",
    "cls.predictions.decoder.bias",
    "cls.seq_relationship.weight",
    "cls.seq_relationship.bias",
)
"""Buffers, a bias that is stored twice, and the head of pairs, which no task here has."""


FAMILY = Family(
    "bert",
    "BertModel",
    _read,
    _write,
    _rules,
    prefix="bert.",
    ignored=(*UNREAD, "pooler.dense.weight", "pooler.dense.bias"),
    variants=(
        {"architectures": ["BertForMaskedLM"]},
        {"architectures": ["BertForMaskedLM"], "hidden_act": "relu", "num_attention_heads": 2},
        {"architectures": ["BertForMaskedLM"], "tie_word_embeddings": False, "type_vocab_size": 1},
        {"architectures": ["BertForMaskedLM"], "layer_norm_eps": 0.01, "num_hidden_layers": 1},
        {"architectures": ["BertForSequenceClassification"], "num_labels": 3},
        {"architectures": ["BertForSequenceClassification"], "hidden_act": "gelu_new"},
        {"architectures": ["BertModel"]},
        {"architectures": ["BertModel"], "intermediate_size": 20, "num_attention_heads": 1},
    ),
)
