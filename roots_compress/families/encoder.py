"""What encoders like BERT share: reading a configuration, writing it, and the place of each tensor.

Norms follow each addition; positions are learned, and `architectures` names what a model is for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from roots_compress.families.base import Rule
from roots_compress.families.decoder_config import first_blocks
from roots_compress.families.encoder_head import read_head, written_head
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import COPY, Transform
from roots_compress.families.values import older_activation_name
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.heads import (
    ClassificationHead,
    MaskedLmHead,
    TextLabelHead,
    TokenClassificationHead,
)
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, Head, ModelSpec, Norm, Stack

EPS = 1e-12
Names = Mapping[str, str]
"""A family's names by BERT's, where they differ."""


def classes(stem: str, *, pretraining: bool = False) -> dict[str, str]:
    """Return the classes of a family, whose names begin with `stem`, and what each is for."""
    return {
        f"{stem}ForMaskedLM": "masked_lm",
        **({f"{stem}ForPreTraining": "masked_lm"} if pretraining else {}),
        f"{stem}ForSequenceClassification": "classification",
        f"{stem}ForTokenClassification": "token_classification",
        f"{stem}Model": "embedding",
    }


def read_encoder(
    switches: Switches,
    kinds: dict[str, str],
    *,
    names: Names | None = None,
    norm: Norm | None = None,
    token_types: bool = True,
    unread_positions: int = 0,
    tables: int | None = None,
    usual: str = "gelu",
    masked: Activation | None = None,
    labels: Activation | Literal["tanh"] = "tanh",
) -> ModelSpec:
    """Read the configuration of an encoder of alike layers.

    Args:
        kinds: the family's classes, and what each is for; the last where the configuration names none.
        norm: of all layers; None where `layer_norm_eps` says it.
        unread_positions: rows of the table of positions before the first that is read.
        tables: channels of the embeddings, where a projection takes them to the stream.
        usual: the layers' activation where the configuration names none.
        masked: the activation before the vocabulary's matrix; None for that of the layers.
        labels: the activation before the labels' matrix.
    """
    key = {} if names is None else names

    def number(name: str, default: int | None = None, **bounds: int) -> int:
        return switches.number(key.get(name, name), default, **bounds)

    width, heads = switches.width_and_heads(
        *(key.get(each, each) for each in ("hidden_size", "num_attention_heads"))
    )
    norm = norm or Norm(kind="layer_norm", eps=switches.positive("layer_norm_eps", EPS))
    activation = switches.activation(key.get("hidden_act", "hidden_act"), usual)
    switches.same("position_embedding_type", "absolute")
    if switches.said("is_decoder", False):
        switches.refuse("is_decoder is true; encoders read what comes later too")
    rows = number("max_position_embeddings", 512)
    positions = rows - unread_positions
    if positions < 1:
        switches.refuse(
            f"max_position_embeddings is {rows}, of which the first {unread_positions} are unread"
        )
    return encoder_spec(
        vocabulary=number("vocab_size"),
        width=width,
        layers=number("num_hidden_layers", most=MOST_LAYERS),
        heads=heads,
        channels=number("intermediate_size"),
        activation=activation,
        norm=norm,
        positions=positions,
        token_types=number("type_vocab_size", 2) if token_types else None,
        tables=tables,
        head=read_head(
            switches,
            kinds,
            masked=MaskedLmHead(activation=masked or activation, eps=norm.eps),
            labelled=ClassificationHead(labels=2, activation=labels),
        ),
        tied=switches.flag("tie_word_embeddings", True),
    )


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
    tables: int | None = None,
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
            vocabulary=vocabulary,
            width=width,
            tables=tables,
            positions=positions,
            token_types=token_types,
            norm=norm,
        ),
        head=head,
        tied=tied,
        max_positions=positions,
    )


def write_encoder(
    spec: ModelSpec, kinds: dict[str, str], *, names: Names | None = None, unread_positions: int = 0
) -> dict[str, Any]:
    """Return an encoder's config.json; what the family cannot say is found by reading it back."""
    attention, mlp = first_blocks(spec)
    written: dict[str, Any] = {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "intermediate_size": mlp.channels,
        "hidden_act": older_activation_name(mlp.activation),
        "max_position_embeddings": (spec.embeddings.positions or 0) + unread_positions,
        "type_vocab_size": spec.embeddings.token_types,
        "layer_norm_eps": (spec.embeddings.norm or Norm()).eps,
        "tie_word_embeddings": spec.tied,
    }
    written = {(names or {}).get(name, name): value for name, value in written.items()}
    return {**written, **written_head(spec.head, kinds)}


def linear_rules(source: str, target: str) -> Iterator[Rule]:
    """Yield the rules of a module that is stored as ours, its weight and its bias."""
    return (Rule(f"{source}.{part}", (f"{target}.{part}",)) for part in ("weight", "bias"))


BERT_LAYER: Names = {
    "attention.self.query": "self_attn.q_proj",
    "attention.self.key": "self_attn.k_proj",
    "attention.self.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "attention.output.LayerNorm": "self_attn_stream_norm",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "output.LayerNorm": "mlp_stream_norm",
}
"""Our names of a layer's modules, by BERT's."""


def encoder_rules(
    spec: ModelSpec,
    *,
    layers: str = "encoder.layer",
    layer: Names = BERT_LAYER,
    positions: Transform = COPY,
) -> Iterator[Rule]:
    """Yield the place of each tensor but the head's.

    Args:
        layer: our names of a layer's modules, by the family's.
        positions: what is done to the table of positions, if it is not stored as it is.
    """
    words, places = "embeddings.word_embeddings.weight", "embeddings.position_embeddings.weight"
    yield Rule(words, ("model.embed_tokens.weight",))
    if spec.embeddings.positions is not None:
        yield Rule(places, ("model.embed_positions.weight",), positions)
    if spec.embeddings.token_types is not None:
        yield Rule("embeddings.token_type_embeddings.weight", ("model.embed_token_types.weight",))
    yield from linear_rules("embeddings.LayerNorm", "model.embed_norm")
    for index in range(len(spec.layers)):
        for theirs, ours in layer.items():
            yield from linear_rules(f"{layers}.{index}.{theirs}", f"model.layers.{index}.{ours}")


def head_rules(
    spec: ModelSpec, *, transform: str, norm: str, decoder: str, bias: str, dense: str, classifier: str
) -> Iterator[Rule]:
    """Yield the place of each tensor of the head.

    Args:
        transform: the dense layer before the vocabulary's matrix, and `norm` the norm after it.
        decoder: the vocabulary's matrix.
        bias: its bias, where the matrix is tied; else it is the matrix's own.
        dense: the dense layer before the labels' matrix.
        classifier: the labels' matrix of texts.
    """
    if isinstance(spec.head, MaskedLmHead):
        yield from linear_rules(transform, "transform.dense")
        yield from linear_rules(norm, "transform.norm")
        yield Rule(bias if spec.tied else f"{decoder}.bias", ("transform.bias",))
        yield Rule(f"{decoder}.weight", ("lm_head.weight",))
    if isinstance(spec.head, TextLabelHead):
        yield from linear_rules(dense, "dense")
        yield from linear_rules(classifier, "classifier")
    if isinstance(spec.head, TokenClassificationHead):
        yield from linear_rules("classifier", "classifier")
