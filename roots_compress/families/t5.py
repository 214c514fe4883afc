"""T5 and mT5: an encoder and a decoder with RMS norms, and distances in place of positions.

Of either the encoder alone may be read, whose states make vectors (sentence-T5, GTR).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from roots_compress.families.base import Family, Rule
from roots_compress.families.seq2seq import (
    SHARED,
    decoder_layer,
    encoder_layer,
    require_both,
    sides,
    start_token,
)
from roots_compress.families.switches import ACTIVATIONS, MOST_LAYERS, Switches
from roots_compress.families.transforms import Shared
from roots_compress.families.values import older_activation_name
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.heads import EmbeddingHead, Seq2SeqHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.positions import Relative
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack

ENCODER = "EncoderModel"
"""What the classes of an encoder alone end with."""
DECODER = ("decoder.",)
"""What the names of tensors begin with that such a class leaves out."""
POSITIONS = 1_000_000
"""More than any memory holds: distances have no end, and `n_positions` is a length of training."""


def _read(switches: Switches, *, proj: str, scaled: bool) -> ModelSpec:
    """Read a configuration.

    Args:
        proj: the feed-forward block where it names none.
        scaled: whether a model whose tables are tied divides the decoder's output by the root of its width.
    """
    alone = bool(named := switches.architectures()) and all(each.endswith(ENCODER) for each in named)
    if not alone:
        require_both(switches)
    switches.all_renamed(SPELLINGS)
    width, heads, head_dim = switches.number("d_model"), switches.number("num_heads"), switches.number("d_kv")
    layers = switches.number("num_layers", most=MOST_LAYERS)
    # null stands for as many as the encoder has.
    decoder_layers = switches.number("num_decoder_layers", layers, null=layers, most=MOST_LAYERS)
    norm = Norm(eps=switches.positive("layer_norm_epsilon", 1e-6))
    relative = Relative(
        buckets=switches.number("relative_attention_num_buckets", 32),
        max_distance=switches.number("relative_attention_max_distance", 128),
    )
    attention = Attention(
        heads=heads, kv_heads=heads, head_dim=head_dim, scale=1.0, relative=relative, causal=False
    )
    mlp = _read_mlp(switches, proj)
    tied = switches.flag("tie_word_embeddings", True)
    scaled = switches.flag("scale_decoder_outputs", tied) if scaled else False
    switches.leave("dropout_rate", "classifier_dropout", "n_positions")
    embeddings = Embeddings(vocabulary=switches.number("vocab_size"), width=width)
    encoder = Stack(layers=(encoder_layer(attention, mlp, norm),) * layers, final_norm=norm)
    if alone:
        return ModelSpec(
            stacks={"encoder": encoder}, embeddings=embeddings, head=EmbeddingHead(), max_positions=POSITIONS
        )
    cross = changed(attention, relative=None, source="cross")
    return ModelSpec(
        stacks={
            "encoder": encoder,
            "decoder": Stack(
                layers=(decoder_layer(changed(attention, causal=True), cross, mlp, norm),) * decoder_layers,
                final_norm=norm,
            ),
        },
        embeddings=embeddings,
        head=Seq2SeqHead(
            start=start_token(switches, switches.said("pad_token_id", 0)),
            scale=width**-0.5 if scaled else 1.0,
        ),
        tied=tied,
        max_positions=POSITIONS,
    )


SPELLINGS = {
    "hidden_size": "d_model",
    "num_attention_heads": "num_heads",
    "num_hidden_layers": "num_layers",
    "head_dim": "d_kv",
}
"""Second names of T5's keys, which transformers' class takes for the first."""


def _read_mlp(switches: Switches, proj: str) -> Mlp:
    named = switches.take("feed_forward_proj", proj)
    gate, dash, name = str(named).rpartition("-")
    if named == "gated-gelu":
        name = "gelu_new"
    if gate != ("gated" if dash else "") or name not in ACTIVATIONS:
        switches.refuse(
            f"feed_forward_proj is {named!r:.60}; supported are an activation, and gated- before it"
        )
    switches.same("dense_act_fn", name)
    switches.same("is_gated_act", bool(dash))
    return Mlp(channels=switches.number("d_ff"), activation=ACTIVATIONS[name], gated=bool(dash))


def _write(spec: ModelSpec, *, scaled: bool, encoder_class: str) -> dict[str, Any]:
    head = spec.head
    if isinstance(head, EmbeddingHead) and spec.layers:
        # The class reads nothing of what is said of a decoder.
        with_decoder: dict[str, Any] = {"architectures": [encoder_class], "is_encoder_decoder": False}
        encoder = decoder = spec.stack
    else:
        encoder, decoder = sides(spec)
        assert isinstance(head, Seq2SeqHead)
        with_decoder = {"decoder_start_token_id": head.start, "is_encoder_decoder": True}
        with_decoder |= {"scale_decoder_outputs": head.scale != 1.0} if scaled else {}
    attention, mlp = encoder.layers[0][0].op, encoder.layers[0][-1].op
    if not isinstance(attention, Attention) or attention.relative is None or not isinstance(mlp, Mlp):
        raise ValueError(
            "its layers do not begin with attention by distances, and end with a feed-forward block"
        )
    name = older_activation_name(mlp.activation)
    proj = name if not mlp.gated else "gated-gelu" if name == "gelu_new" else f"gated-{name}"
    # Others are gated with the names of `ACTIVATIONS`; that of exact GELU is taken by the approximate one.
    if proj == "gated-gelu" and name == "gelu":
        proj = "gated-gelu_python"
    return {
        **with_decoder,
        "vocab_size": spec.embeddings.vocabulary,
        "d_model": spec.width,
        "d_kv": attention.head_dim,
        "d_ff": mlp.channels,
        "num_layers": len(encoder.layers),
        "num_decoder_layers": len(decoder.layers),
        "num_heads": attention.heads,
        "relative_attention_num_buckets": attention.relative.buckets,
        "relative_attention_max_distance": attention.relative.max_distance,
        "layer_norm_epsilon": (encoder.final_norm or Norm()).eps,
        "feed_forward_proj": proj,
        "tie_word_embeddings": spec.tied,
    }


def _rules(spec: ModelSpec) -> Iterator[Rule]:
    yield Rule("shared.weight", ("model.embed_tokens.weight",))
    yield Rule("lm_head.weight", ("lm_head.weight",))
    for side, stack, first in zip(("encoder", "decoder"), spec.running, (0, spec.begins), strict=False):
        paths = [spec.layer_path(first + index) for index in range(len(stack.layers))]
        norm = f"{paths[0].partition('.layers.')[0]}.norm.weight"
        yield Rule(f"{side}.final_layer_norm.weight", (norm,))
        yield Rule(
            f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight",
            tuple(f"{path}.self_attn.relative.weight" for path in paths),
            Shared(len(paths)),
        )
        for index, (path, layer) in enumerate(zip(paths, stack.layers, strict=True)):
            for number, sublayer in enumerate(layer):
                theirs, ours = f"{side}.block.{index}.layer.{number}", f"{path}.{sublayer.name}"
                yield Rule(f"{theirs}.layer_norm.weight", (f"{ours}_pre_norm.weight",))
                if isinstance(sublayer.op, Attention):
                    name = "SelfAttention" if sublayer.op.source == "self" else "EncDecAttention"
                    for part in "qkvo":
                        yield Rule(f"{theirs}.{name}.{part}.weight", (f"{ours}.{part}_proj.weight",))
                elif isinstance(sublayer.op, Mlp):
                    inner = (
                        {"wi_0": "gate_proj", "wi_1": "up_proj"} if sublayer.op.gated else {"wi": "up_proj"}
                    )
                    for part, linear in {**inner, "wo": "down_proj"}.items():
                        yield Rule(f"{theirs}.DenseReluDense.{part}.weight", (f"{ours}.{linear}.weight",))


def t5_family(
    model_type: str, architecture: str, variants: tuple[Mapping[str, Any], ...], *, proj: str, scaled: bool
) -> Family:
    """Return a family of T5's shape; the last arguments are those of `_read`."""
    return Family(
        model_type,
        architecture,
        partial(_read, proj=proj, scaled=scaled),
        partial(
            _write, scaled=scaled, encoder_class=architecture.replace("ForConditionalGeneration", ENCODER)
        ),
        _rules,
        prefix="",
        ignored=("decoder.block.{}.layer.{}.EncDecAttention.relative_attention_bias.weight",),
        copies=SHARED,
        apart=lambda spec: () if spec.source else DECODER,
        variants=variants,
    )


T5 = t5_family(
    "t5",
    "T5ForConditionalGeneration",
    (
        {},
        {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
        {"feed_forward_proj": "gated-silu", "num_layers": 1, "num_decoder_layers": 3},
        {"feed_forward_proj": "gelu", "num_heads": 2, "d_kv": 12},
        {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
        {"layer_norm_epsilon": 0.01, "d_kv": 16},
        {"decoder_start_token_id": 5, "num_layers": 3, "num_decoder_layers": 1},
        {"feed_forward_proj": "gated-relu", "d_ff": 20, "num_heads": 1},
    ),
    proj="relu",
    scaled=True,
)
"""T5 and mT5: an encoder and a decoder with RMS norms, and distances in place of positions."""


MT5 = t5_family(
    "mt5",
    "MT5ForConditionalGeneration",
    (
        {},
        {"tie_word_embeddings": False, "d_ff": 20},
        {"feed_forward_proj": "gated-silu", "num_layers": 1, "num_decoder_layers": 3},
        {"feed_forward_proj": "relu", "num_heads": 2, "d_kv": 12},
        {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
        {"layer_norm_epsilon": 0.01, "tie_word_embeddings": False, "num_heads": 1},
        {"decoder_start_token_id": 5, "num_layers": 3, "num_decoder_layers": 1},
        {"feed_forward_proj": "gelu", "d_kv": 16},
    ),
    proj="gated-gelu",
    scaled=False,
)
"""mT5: T5 with a gated feed-forward block, and logits without a factor."""
