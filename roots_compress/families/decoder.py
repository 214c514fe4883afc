"""What Llama-like families share: reading a configuration, and writing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roots_compress.families.rope import read_rope, rope_of
from roots_compress.families.switches import ACTIVATIONS, MOST_LAYERS, Switches
from roots_compress.models.ops.attention import Attention, QkNorm, Rope
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.spec import Embeddings, Layer, ModelSpec, Norm, Stack, Sublayer

Windows = Literal["none", "all", "by_layer"]
Biases = Literal["none", "qkv", "qkvo"]
OLD_ROTARY = ("layers.{}.self_attn.rotary_emb.inv_freq",)
"""Frequency tables that old checkpoints carry."""


@dataclass(frozen=True)
class Shape:
    """The numbers that every configuration of a Llama-like decoder gives."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    channels: int
    max_positions: int
    norm: Norm
    activation: Activation
    tied: bool


def read_shape(
    switches: Switches,
    *,
    head_dim: int | None = None,
    null_head_dim: bool = False,
    kv_heads: int | None = None,
    null_kv_heads: bool = False,
    whole_heads: bool = False,
    context: int,
    tied: bool = False,
    eps: float = 1e-6,
    activations: Mapping[str, Activation] = ACTIVATIONS,
    activation_key: str = "hidden_act",
    activation: str = "silu",
) -> Shape:
    """Take the numbers of a configuration.

    Args:
        switches: the configuration; `finish` is left to the caller.
        head_dim: the default; None for hidden size over heads.
        null_head_dim: whether null means hidden size over heads; else it is refused, as by transformers.
        kv_heads: the default; None for as many as query heads.
        null_kv_heads: whether null means as many as query heads; else it is refused.
        whole_heads: whether the family's class wants a hidden size that is a multiple of the heads.
        context: the default of `max_position_embeddings`.
        tied: the default of `tie_word_embeddings`.
        eps: the default of `rms_norm_eps`.
        activations: the family's reading of activation names.
        activation_key: the key of the activation; its other spelling may only say the same.
        activation: the activation where none is named.
    """
    switches.require_writer()
    width, layers = switches.number("hidden_size"), switches.number("num_hidden_layers", most=MOST_LAYERS)
    heads = switches.number("num_attention_heads")
    if whole_heads and width % heads:
        switches.refuse(f"hidden_size {width} is not a multiple of num_attention_heads {heads}")
    derived = width // heads if width % heads == 0 else None
    size = switches.number("head_dim", head_dim or derived, null=derived if null_head_dim else None)
    kv_count = switches.number(
        "num_key_value_heads", kv_heads or heads, null=heads if null_kv_heads else None
    )
    if heads % kv_count:
        switches.refuse(f"num_key_value_heads {kv_count} does not divide num_attention_heads {heads}")
    if size % 2:
        switches.refuse(f"the head size {size} is odd; rotary positions need it even")
    function = switches.activation(activation_key, activation, activations)
    other = "hidden_activation" if activation_key == "hidden_act" else "hidden_act"
    switches.same(other, *(name for name, ours in activations.items() if ours == function))
    return Shape(
        switches.number("vocab_size"),
        width,
        layers,
        heads,
        kv_count,
        size,
        switches.number("intermediate_size"),
        switches.number("max_position_embeddings", context),
        Norm(eps=switches.positive("rms_norm_eps", eps)),
        function,
        switches.flag("tie_word_embeddings", tied),
    )


def read_windows(switches: Switches, layers: int, windows: Windows) -> list[int | None]:
    """Take the switches of sliding windows, and return each layer's.

    Args:
        switches: the configuration.
        layers: how many there are.
        windows: whether the family has none, one for all layers unless they are told apart, or Qwen's choice
            by layer.
    """
    if windows == "none":
        switches.no_windows(layers)
        return [None] * layers
    return switches.windows(layers, by_default=windows == "all")


def read_biases(switches: Switches, biases: Biases | None) -> tuple[bool, bool]:
    """Take the switches of biases in attention: those on queries, keys and values, and on the output.

    Args:
        switches: the configuration.
        biases: which projections always have them; None where `attention_bias` decides over all four.
    """
    if biases == "qkv":
        switches.same("attention_bias", True)
        switches.same("qkv_bias", True)
        return True, False
    biased = switches.flag("attention_bias", False) if biases is None else biases != "none"
    return biased, biased


def read_decoder(
    switches: Switches,
    *,
    windows: Windows = "none",
    biases: Biases | None = None,
    mlp_bias: bool = False,
    qk_norm: bool = False,
    scaled: bool = False,
    **defaults: Any,
) -> ModelSpec:
    """Read the configuration of a decoder like Llama, whose layers are alike but for their windows.

    Args:
        switches: the configuration; `finish` is left to the caller.
        windows: as `read_windows` takes them.
        biases: as `read_biases` takes them.
        mlp_bias: whether there is such a switch.
        qk_norm: whether queries and keys are normed.
        scaled: whether embeddings are multiplied by the root of the hidden size.
        defaults: of the family, as `read_shape` takes them.
    """
    shape = read_shape(switches, **defaults)
    each = read_windows(switches, shape.layers, windows)
    bias, output_bias = read_biases(switches, biases)
    if qk_norm:
        switches.same("use_qk_norm", True)
    rope = rope_of(switches, read_rope(switches))
    mlp = Mlp(
        channels=shape.channels,
        activation=shape.activation,
        bias=switches.flag("mlp_bias", False) if mlp_bias else False,
    )
    layers = [
        pre_norm_layer(
            Attention(
                heads=shape.heads,
                kv_heads=shape.kv_heads,
                head_dim=shape.head_dim,
                rope=rope,
                window=window,
                qk_norm=QkNorm(eps=shape.norm.eps) if qk_norm else None,
                bias=bias,
                output_bias=output_bias,
            ),
            mlp,
            shape.norm,
        )
        for window in each
    ]
    return decoder_spec(shape, layers, scale=shape.width**0.5 if scaled else 1.0)


def pre_norm_layer(attention: Attention, mlp: OpSpec, norm: Norm) -> Layer:
    """Return a layer of attention and a feed-forward block, each behind a norm."""
    return (
        Sublayer(op=attention, pre_norm=norm),
        Sublayer.model_validate({"op": mlp, "pre_norm": norm}),
    )


def decoder_spec(
    shape: Shape, layers: Sequence[Layer], *, scale: float = 1.0, head: LmHead | None = None
) -> ModelSpec:
    """Return a decoder of these layers, with a final norm.

    Args:
        shape: its numbers.
        layers: its layers.
        scale: factor on the token embeddings.
        head: of the logits.
    """
    return ModelSpec(
        stacks={"decoder": Stack(layers=tuple(layers), final_norm=shape.norm)},
        embeddings=Embeddings(vocabulary=shape.vocabulary, width=shape.width, scale=scale),
        head=head or LmHead(),
        tied=shape.tied,
        max_positions=shape.max_positions,
    )


def write_decoder(
    spec: ModelSpec, *, windows: Windows = "none", attention_bias: bool = False
) -> dict[str, Any]:
    """Return a Llama-like config.json; what the family cannot say is found by reading it back.

    Args:
        spec: of the model.
        windows: where the family keeps sliding windows.
        attention_bias: whether the family has such a switch.
    """
    attentions = spec.attentions()
    attention, mlp = first_blocks(spec)
    norm = spec.stack.final_norm or Norm()
    config: dict[str, Any] = {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "max_position_embeddings": spec.max_positions,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "intermediate_size": mlp.channels,
        "rms_norm_eps": norm.eps,
        "rope_parameters": (attention.rope or Rope()).parameters(),
        "hidden_act": activation_name(mlp.activation),
        "tie_word_embeddings": spec.tied,
    }
    if attention_bias:
        config["attention_bias"] = attention.bias
    if windows == "all":
        config["sliding_window"] = attention.window
    elif windows == "by_layer":
        window = next((each.window for each in attentions if each.window is not None), None)
        config["use_sliding_window"], config["sliding_window"] = window is not None, window
        config["layer_types"] = layer_types(attentions)
    return config


def layer_types(attentions: Sequence[Attention]) -> list[str]:
    """Return transformers' names of what layers attend to."""
    return ["full_attention" if each.window is None else "sliding_attention" for each in attentions]


def first_blocks(spec: ModelSpec) -> tuple[Attention, Mlp]:
    """Return the first layer's attention and feed-forward block.

    Raises:
        ValueError: the model has no layer, or another block in the place of one of them.
    """
    ops = [sublayer.op for sublayer in spec.layers[0]] if spec.layers else []
    if len(ops) != 2 or not isinstance(ops[0], Attention) or not isinstance(ops[1], Mlp):
        raise ValueError("its layers are not attention followed by a feed-forward block")
    return ops[0], ops[1]


def activation_name(ours: Activation) -> str:
    """Return transformers' name of an activation."""
    return "gelu_pytorch_tanh" if ours == "gelu_tanh" else ours
