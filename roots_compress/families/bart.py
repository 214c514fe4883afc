"""BART, mBART and Pegasus: an encoder and a decoder with all biases, and norms before or after the blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.encoder import linear_rules
from roots_compress.families.seq2seq import (
    SHARED,
    decoder_layer,
    encoder_layer,
    require_both,
    sides,
    start_token,
)
from roots_compress.families.switches import MOST_LAYERS, Switches
from roots_compress.families.transforms import COPY, ONE_ROW, Tensor, last_rows, sines, zeros
from roots_compress.families.values import older_activation_name
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import Seq2SeqHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import ENCODER, Embeddings, ModelSpec, Norm, Stack

NORM = Norm(kind="layer_norm", eps=1e-5)
SPELLINGS = {
    "hidden_size": "d_model",
    "num_attention_heads": "encoder_attention_heads",
    "num_hidden_layers": "encoder_layers",
}
"""Second names of BART's keys, which transformers' class takes for the first."""
OF_TRAINING = (
    "classif_dropout", "force_bos_token_to_be_generated", "replacing_rate", "save_step",
    "student_decoder_layers", "student_encoder_layers",
)  # fmt: skip
"""Keys of published files that say how a model was trained, or what generation begins with."""
DROPOUTS = ("dropout", "activation_dropout", "encoder_layerdrop", "decoder_layerdrop", "init_std")


@dataclass(frozen=True)
class Form:
    """What tells families of BART's shape apart.

    Attributes:
        pre_norm: whether norms are before the blocks and after the last, or after each addition.
        embed_norm: whether each stack begins with one.
        unread: rows of the tables of positions before the first that is read.
        sines: makes the table of positions where files may leave it out; None where it is learned.
        start: the token that the decoder begins with, if a configuration does not say it.
        bias: whether logits have one.
        act: the activation, and `scaled` whether embeddings are, if a configuration does not say it.
        scaled: see there.
    """

    pre_norm: bool
    embed_norm: bool
    unread: int
    sines: Callable[[Sequence[int]], Tensor] | None
    start: int | None
    bias: bool = True
    act: str = "gelu"
    scaled: bool = False

    def check_old_keys(self, switches: Switches) -> None:
        """Take the keys of old files, which may only say what every model of the family is."""
        for key, value in (
            ("add_bias_logits", False),
            ("add_final_layer_norm", self.pre_norm),
            ("normalize_before", self.pre_norm),
            ("normalize_embedding", self.embed_norm),
            ("static_position_embeddings", self.sines is not None),
        ):
            switches.same(key, value)
        if self.sines is not None:
            switches.take("extra_pos_embeddings")  # Read by no layer: such tables have the positions alone.
        else:
            switches.same("extra_pos_embeddings", self.unread)


def read_bart(switches: Switches, form: Form) -> ModelSpec:
    """Read the configuration of a model of BART's shape; `finish` is left to the caller."""
    require_both(switches)
    switches.all_renamed(SPELLINGS)
    form.check_old_keys(switches)
    # Untied, each stack would have a table of tokens of its own.
    switches.same("tie_word_embeddings", True)
    switches.leave(*DROPOUTS, *OF_TRAINING)
    width = switches.number("d_model", 1024)
    activation = switches.activation("activation_function", form.act)
    scaled = switches.flag("scale_embedding", form.scaled)
    positions = switches.number("max_position_embeddings", 1024)

    def side(name: str) -> tuple[int, Attention, Mlp]:
        heads = switches.number(f"{name}_attention_heads", 16)
        if width % heads:
            switches.refuse(f"d_model {width} is not a multiple of {name}_attention_heads {heads}")
        mlp = Mlp(
            channels=switches.number(f"{name}_ffn_dim", 4096), activation=activation, gated=False, bias=True
        )
        attention = Attention(
            heads=heads, kv_heads=heads, head_dim=width // heads, causal=False, bias=True, output_bias=True
        )
        return switches.number(f"{name}_layers", 12, most=MOST_LAYERS), attention, mlp

    last = NORM if form.pre_norm else None
    count, attention, mlp = side("encoder")
    layer = encoder_layer(attention, mlp, NORM, pre_norm=form.pre_norm)
    encoder = Stack(layers=(layer,) * count, final_norm=last)
    count, attention, mlp = side("decoder")
    own, cross = changed(attention, causal=True), changed(attention, source="cross")
    layer = decoder_layer(own, cross, mlp, NORM, pre_norm=form.pre_norm)
    decoder = Stack(layers=(layer,) * count, final_norm=last)
    return ModelSpec(
        stacks={"encoder": encoder, "decoder": decoder},
        embeddings=Embeddings(
            vocabulary=switches.number("vocab_size"),
            width=width,
            scale=width**0.5 if scaled else 1.0,
            positions=positions,
            norm=NORM if form.embed_norm else None,
        ),
        head=Seq2SeqHead(start=start_token(switches, form.start), bias=form.bias),
        max_positions=positions,
    )


def write_bart(spec: ModelSpec) -> dict[str, Any]:
    """Return a config.json; what the family cannot say is found by reading it back."""
    head, written = spec.head, dict[str, Any]()
    for name, stack in zip(("encoder", "decoder"), sides(spec), strict=True):
        attention, mlp = stack.layers[0][0].op, stack.layers[0][-1].op
        if not isinstance(attention, Attention) or not isinstance(mlp, Mlp):
            raise ValueError("its layers do not begin with attention and end with a feed-forward block")
        written |= {
            f"{name}_layers": len(stack.layers),
            f"{name}_attention_heads": attention.heads,
            f"{name}_ffn_dim": mlp.channels,
            "activation_function": older_activation_name(mlp.activation),
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


BLOCKS = {"self_attn": "self_attn", "cross_attn": "encoder_attn"}
"""BART's names of attentions, by ours."""
PROJECTIONS = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "o_proj": "out_proj"}


def bart_rules(spec: ModelSpec, form: Form) -> Iterator[Rule]:
    """Yield the place of each tensor."""
    where = "pre" if form.pre_norm else "stream"
    positions = last_rows(form.unread) if form.unread else COPY
    yield Rule("shared.weight", ("model.embed_tokens.weight",))
    yield Rule("lm_head.weight", ("lm_head.weight",))
    if form.bias:
        yield Rule("final_logits_bias", ("logits_bias",), ONE_ROW)
    for side, stack, first in zip(("encoder", "decoder"), spec.running, (0, spec.begins), strict=True):
        ours = spec.layer_path(first).partition(".layers.")[0]
        yield Rule(f"{side}.embed_positions.weight", (f"{ours}.embed_positions.weight",), positions)
        yield from linear_rules(f"{side}.layernorm_embedding", f"{ours}.embed_norm")
        yield from linear_rules(f"{side}.layer_norm", f"{ours}.norm")
        for index, layer in enumerate(stack.layers):
            theirs, path = f"{side}.layers.{index}", spec.layer_path(first + index)
            for sublayer in layer:
                name = sublayer.name
                if isinstance(sublayer.op, Mlp):
                    yield from linear_rules(f"{theirs}.fc1", f"{path}.mlp.up_proj")
                    yield from linear_rules(f"{theirs}.fc2", f"{path}.mlp.down_proj")
                    yield from linear_rules(f"{theirs}.final_layer_norm", f"{path}.mlp_{where}_norm")
                elif name in BLOCKS:
                    block = f"{theirs}.{BLOCKS[name]}"
                    yield from linear_rules(f"{block}_layer_norm", f"{path}.{name}_{where}_norm")
                    for linear, projection in PROJECTIONS.items():
                        yield from linear_rules(f"{block}.{projection}", f"{path}.{name}.{linear}")


SHAPES: tuple[dict[str, Any], ...] = (
    {},
    {"scale_embedding": True, "decoder_start_token_id": 0},
    {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3},
    {"activation_function": "gelu_new", "encoder_layers": 3, "decoder_layers": 1},
    {"encoder_attention_heads": 2, "decoder_attention_heads": 8},
    {"encoder_ffn_dim": 20, "decoder_ffn_dim": 52},
    {"d_model": 40, "encoder_attention_heads": 5},
    {"max_position_embeddings": 24, "activation_function": "silu", "decoder_attention_heads": 1},
)
"""Variants for the tests."""


def bart_family(
    model_type: str,
    architecture: str,
    form: Form,
    variants: tuple[Mapping[str, Any], ...],
    read: Callable[[Switches], ModelSpec] | None = None,
) -> Family:
    """Return a family of BART's shape.

    Args:
        read: its own reading, where `read_bart` is not all of it.
    """
    # A file of the class without a head has no bias of logits.
    absent: dict[str, Callable[[Sequence[int]], Tensor]] = {"logits_bias": zeros}
    if form.sines is not None:
        tables = (f"{side}.embed_positions.weight" for side in ("model", ENCODER))
        absent |= dict.fromkeys(tables, form.sines)
    return Family(
        model_type,
        architecture,
        read or partial(read_bart, form=form),
        write_bart,
        partial(bart_rules, form=form),
        headed=("lm_head.", "final_logits_bias"),
        ignored=("encoder.version", "decoder.version"),
        copies=SHARED,
        absent=absent,
        variants=variants,
    )


BART = bart_family(
    "bart",
    "BartForConditionalGeneration",
    Form(pre_norm=False, embed_norm=True, unread=2, sines=None, start=2),
    SHAPES,
)
"""BART: an encoder and a decoder with learned positions, a norm after each addition, and all biases."""


MBART = bart_family(
    "mbart",
    "MBartForConditionalGeneration",
    Form(pre_norm=True, embed_norm=True, unread=2, sines=None, start=None),
    SHAPES,
)
"""mBART: BART with norms before the blocks."""


PEGASUS = bart_family(
    "pegasus",
    "PegasusForConditionalGeneration",
    Form(pre_norm=True, embed_norm=False, unread=0, sines=sines, start=0),
    (
        *SHAPES[:3],
        {"encoder_attention_heads": 2, "decoder_ffn_dim": 52, "d_model": 40, "decoder_attention_heads": 5},
    ),
)
"""Pegasus: BART with norms before the blocks, and with positions of sines and cosines."""
