"""Nomic BERT: an encoder with rotary positions, gated feed-forward blocks, and norms after each addition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.bert import bert_head_rules
from roots_compress.families.decoder_config import activation_name, first_blocks
from roots_compress.families.encoder import EPS, linear_rules
from roots_compress.families.encoder_head import read_head, written_head
from roots_compress.families.rope import read_rope, rope_of, written_rope
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import Rows
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.heads import ClassificationHead, MaskedLmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, Head, ModelSpec, Norm, Stack

ARCHITECTURES = {
    "NomicBertForMaskedLM": "masked_lm",
    "NomicBertForSequenceClassification": "classification",
    "NomicBertForTokenClassification": "token_classification",
    "NomicBertModel": "embedding",
}
THETA = 1000.0
OLD_KEYS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
    "rotary_emb_fraction": "partial_rotary_factor",
}
"""Keys of files from before the family was one of transformers'."""
OLD_LENGTH, TRAINED_LENGTH = "n_positions", "max_trained_positions"
OLD_SWITCHES: dict[str, Any] = {
    "activation_function": "swiglu",
    "causal": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "parallel_block": False,
    "parallel_block_tied_norm": False,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "scale_attn_weights": True,
    "use_rms_norm": False,
}
"""What such files say of every layer, as transformers' class has it."""
OLD_UNREAD = """
    dense_seq_output fused_bias_fc fused_dropout_add_ln pad_vocab_size_multiple rotary_scaling_factor
    use_flash_attn use_xentropy
    """.split()  # noqa: SIM905
"""Keys of how a model is computed, and of a factor that serves longer texts than it was made for."""


def _read(switches: Switches) -> ModelSpec:
    switches.all_renamed(OLD_KEYS)
    switches.all_same(OLD_SWITCHES)
    switches.leave(*OLD_UNREAD)
    if (length := switches.take(OLD_LENGTH)) is not None:
        # More positions than that were reached by other angles, which only the older class had.
        switches.put("max_position_embeddings", switches.take(TRAINED_LENGTH, length))
    width, heads = switches.number("hidden_size", 768), switches.number("num_attention_heads", 12)
    head_dim = switches.number("head_dim", width // heads, null=width // heads)
    norm = Norm(kind="layer_norm", eps=switches.positive("layer_norm_eps", EPS))
    activation = switches.activation("hidden_act", "silu")
    return nomic_spec(
        vocabulary=switches.number("vocab_size", 30528),
        width=width,
        layers=switches.number("num_hidden_layers", 12, most=MOST_LAYERS),
        attention=nomic_attention(heads, head_dim, rope_of(switches, read_rope(switches, theta=THETA))),
        mlp=Mlp(channels=switches.number("intermediate_size", 3072), activation=activation),
        norm=norm,
        token_types=switches.number("type_vocab_size", 2),
        head=read_head(
            switches,
            ARCHITECTURES,
            masked=MaskedLmHead(activation=activation, eps=norm.eps),
            labelled=ClassificationHead(labels=2, activation="tanh"),
        ),
        max_positions=switches.number("max_position_embeddings", 2048),
        tied=switches.flag("tie_word_embeddings", True),
    )


def nomic_attention(heads: int, head_dim: int, rope: Rope) -> Attention:
    """Return the attention of a layer."""
    return Attention(heads=heads, kv_heads=heads, head_dim=head_dim, rope=rope, causal=False)


def nomic_spec(
    *,
    vocabulary: int,
    width: int,
    layers: int,
    attention: Attention,
    mlp: Mlp,
    norm: Norm,
    token_types: int,
    head: Head,
    max_positions: int,
    tied: bool = True,
) -> ModelSpec:
    """Return an encoder of alike layers with a norm after each addition to the stream."""
    layer = (Sublayer(op=attention, stream_norm=norm), Sublayer(op=mlp, stream_norm=norm))
    return ModelSpec(
        stacks={"encoder": Stack(layers=(layer,) * layers)},
        embeddings=Embeddings(vocabulary=vocabulary, width=width, token_types=token_types, norm=norm),
        head=head,
        tied=tied,
        max_positions=max_positions,
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    attention, mlp = first_blocks(spec)
    return {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "head_dim": attention.head_dim,
        "intermediate_size": mlp.channels,
        "hidden_act": activation_name(mlp.activation),
        "max_position_embeddings": spec.max_positions,
        "type_vocab_size": spec.embeddings.token_types,
        "layer_norm_eps": (spec.embeddings.norm or Norm()).eps,
        "rope_parameters": written_rope(attention),
        "tie_word_embeddings": spec.tied,
        **written_head(spec.head, ARCHITECTURES),
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield Rule("embeddings.word_embeddings.weight", ("model.embed_tokens.weight",))
    yield Rule("embeddings.token_type_embeddings.weight", ("model.embed_token_types.weight",))
    yield from linear_rules("emb_ln", "model.embed_norm")
    for index, (attention, mlp) in enumerate(spec.layers):
        theirs, ours = f"encoder.layers.{index}", f"model.layers.{index}"
        yield joined_qkv(f"{theirs}.attn.Wqkv.weight", f"{ours}.self_attn", attention, spec.width)
        yield Rule(f"{theirs}.attn.out_proj.weight", (f"{ours}.self_attn.o_proj.weight",))
        for name, part in {"fc11": "up_proj", "fc12": "gate_proj", "fc2": "down_proj"}.items():
            yield Rule(f"{theirs}.mlp.{name}.weight", (f"{ours}.{mlp.name}.{part}.weight",))
        yield from linear_rules(f"{theirs}.norm1", f"{ours}.self_attn_stream_norm")
        yield from linear_rules(f"{theirs}.norm2", f"{ours}.mlp_stream_norm")
    for rule in bert_head_rules(spec):
        yield Rule(rule.source.replace("LayerNorm", "layer_norm"), rule.targets)


def joined_qkv(source: str, module: str, attention: Sublayer, width: int) -> Rule:
    """Return the place of the matrix of queries, keys and values."""
    parts = [f"{name}_proj" for name in "qkv"]
    sizes = attention.op.matrices(width)
    targets = tuple(f"{module}.{part}.weight" for part in parts)
    return Rule(source, targets, Rows(tuple(sizes[part].rows for part in parts)))


MASKED, LABELS, TAGS, VECTORS = ({"architectures": [name]} for name in ARCHITECTURES)
NOMIC_BERT = Family(
    "nomic_bert",
    "NomicBertModel",
    _read,
    _write,
    _rules,
    prefix="nomic_bert.",
    headed=("cls.", "classifier."),
    copies={"cls.predictions.decoder.bias": "cls.predictions.bias"},
    ignored=("cls.predictions.bias", "pooler.dense.weight", "pooler.dense.bias"),
    variants=(
        MASKED,
        {**MASKED, "hidden_act": "gelu", "num_attention_heads": 2},
        {**MASKED, "tie_word_embeddings": False, "type_vocab_size": 1},
        {**MASKED, "layer_norm_eps": 0.01, "num_hidden_layers": 1, "head_dim": 12},
        {**LABELS, "num_labels": 3, "rope_parameters": {"rope_type": "default", "rope_theta": 50.0}},
        {**TAGS, "num_labels": 5},
        {**VECTORS, "rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}},
        {**VECTORS, "intermediate_size": 20, "num_attention_heads": 1},
    ),
)
