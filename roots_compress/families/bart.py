"""BART: an encoder and a decoder with learned positions, a norm after each addition, and all biases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from roots_compress.families.base import Family, LastRows, Rule, Tensor
from roots_compress.families.encoder import linear_rules
from roots_compress.families.seq2seq import decoder_layer, encoder_layer, sides, start_token
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack

UNREAD = 2
"""Rows of the tables of positions before the first that is read."""
NORM = Norm(kind="layer_norm", eps=1e-5)
SPELLINGS = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}
"""Second names of BART's keys, which transformers' class takes for the first."""
OLD = {
    "add_bias_logits": False,
    "add_final_layer_norm": False,
    "extra_pos_embeddings": UNREAD,
    "normalize_before": False,
    "normalize_embedding": True,
    "static_position_embeddings": False,
}
"""Keys of old files, and what they say of every BART."""
OF_TRAINING = (
    "classif_dropout", "force_bos_token_to_be_generated", "replacing_rate", "save_step",
    "student_decoder_layers", "student_encoder_layers",
)  # fmt: skip
"""Keys of published files that say how a model was trained, or what generation begins with."""


def _read(switches: Switches) -> ModelSpec:
    switches.require_writer()
    for spelling, key in SPELLINGS.items():
        switches.renamed(spelling, key)
    for key, value in OLD.items():
        switches.same(key, value)
    # Untied, each stack would have a table of tokens of its own.
    switches.same("tie_word_embeddings", True)
    for unread in ("dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std"):
        switches.take(unread)
    for bookkeeping in OF_TRAINING:
        switches.take(bookkeeping)
    width = switches.number("d_model", 1024)
    activation = switches.activation("activation_function", "gelu")
    scaled = switches.flag("scale_embedding", False)
    positions = switches.number("max_position_embeddings", 1024)

    def side(name: str) -> tuple[int, Attention, Mlp]:
        heads = switches.number(f"{name}_attention_heads", 16)
        if width % heads:
            switches.refuse(f"d_model {width} is not a multiple of {name}_attention_heads {heads}")
        mlp = Mlp(
            channels=switches.number(f"{name}_ffn_dim", 4096), activation=activation, gated=False, bias=True
        )
        return switches.number(f"{name}_layers", 12, most=MOST_LAYERS), _attention(width, heads), mlp

    count, attention, mlp = side("encoder")
    encoder = Stack(layers=(encoder_layer(attention, mlp, NORM, pre_norm=False),) * count)
    count, attention, mlp = side("decoder")
    own, cross = changed(attention, causal=True), changed(attention, source="cross")
    decoder = Stack(layers=(decoder_layer(own, cross, mlp, NORM, pre_norm=False),) * count)
    return ModelSpec(
        stacks={"encoder": encoder, "decoder": decoder},
        embeddings=Embeddings(
            vocabulary=switches.number("vocab_size"),
            width=width,
            scale=width**0.5 if scaled else 1.0,
            positions=positions,
            norm=NORM,
        ),
        head=Seq2SeqHead(start=start_token(switches, 2), bias=True),
        max_positions=positions,
    )


def _attention(width: int, heads: int) -> Attention:
    return Attention(
        heads=heads, kv_heads=heads, head_dim=width // heads, causal=False, bias=True, output_bias=True
    )


def _write(spec: ModelSpec) -> dict[str, Any]:
    head, written = spec.head, dict[str, Any]()
    for name, stack in zip(("encoder", "decoder"), sides(spec), strict=True):
        attention, mlp = stack.layers[0][0].op, stack.layers[0][-1].op
        if not isinstance(attention, Attention) or not isinstance(mlp, Mlp):
            raise ValueError("its layers do not begin with attention and end with a feed-forward block")
        written |= {
            f"{name}_layers": len(stack.layers),
            f"{name}_attention_heads": attention.heads,
            f"{name}_ffn_dim": mlp.channels,
            "activation_function": "gelu_new" if mlp.activation == "gelu_tanh" else mlp.activation,
        }
    assert isinstance(head, Seq2SeqHead)
    return {
        **written,
        "vocab_size": spec.embeddings.vocabulary,
        "d_model": spec.width,
        "scale_embedding": spec.embeddings.scale != 1.0,
        "max_position_embeddings": spec.max_positions,
        "tie_word_embeddings": True,
        "decoder_start_token_id": head.start,
        "is_encoder_decoder": True,
    }


class _Row:
    """A vector that is stored as a matrix of one row."""

    def apply(self, tensor: Tensor) -> Sequence[Tensor]:
        """Return the vector."""
        return (tensor.flatten(),)

    def invert(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the matrix."""
        return tensors[0][None]


BLOCKS = {"self_attn": "self_attn", "cross_attn": "encoder_attn"}
"""BART's names of attentions, by ours."""
PROJECTIONS = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "out_proj"}


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield Rule("shared.weight", ("model.embed_tokens.weight",))
    yield Rule("lm_head.weight", ("lm_head.weight",))
    yield Rule("final_logits_bias", ("logits_bias",), _Row())
    for side, stack, first in zip(("encoder", "decoder"), spec.running, (0, spec.begins), strict=True):
        ours = spec.layer_path(first).partition(".layers.")[0]
        yield Rule(f"{side}.embed_positions.weight", (f"{ours}.embed_positions.weight",), LastRows(UNREAD))
        yield from linear_rules(f"{side}.layernorm_embedding", f"{ours}.embed_norm")
        for index, layer in enumerate(stack.layers):
            theirs, path = f"{side}.layers.{index}", spec.layer_path(first + index)
            for sublayer in layer:
                name = sublayer.name
                if isinstance(sublayer.op, Mlp):
                    yield from linear_rules(f"{theirs}.fc1", f"{path}.mlp.up_proj")
                    yield from linear_rules(f"{theirs}.fc2", f"{path}.mlp.down_proj")
                    yield from linear_rules(f"{theirs}.final_layer_norm", f"{path}.mlp_stream_norm")
                elif name in BLOCKS:
                    block = f"{theirs}.{BLOCKS[name]}"
                    yield from linear_rules(f"{block}_layer_norm", f"{path}.{name}_stream_norm")
                    for linear, projection in PROJECTIONS.items():
                        yield from linear_rules(f"{block}.{projection}", f"{path}.{name}.{linear}")


FAMILY = Family(
    "bart",
    "BartForConditionalGeneration",
    _read,
    _write,
    _rules,
    headed=("lm_head.", "final_logits_bias"),
    ignored=("encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
    zero=("logits_bias",),  # A file of the class without a head has none.
    variants=(
        {},
        {"scale_embedding": True, "decoder_start_token_id": 0},
        {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3},
        {"activation_function": "gelu_new", "encoder_layers": 3, "decoder_layers": 1},
        {"encoder_attention_heads": 2, "decoder_attention_heads": 8},
        {"encoder_ffn_dim": 20, "decoder_ffn_dim": 52},
        {"d_model": 40, "encoder_attention_heads": 5},
        {"max_position_embeddings": 24, "activation_function": "silu", "decoder_attention_heads": 1},
    ),
)
