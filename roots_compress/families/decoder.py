"""What Llama-like families share: reading a configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roots_compress.families.rope import DEFAULT_THETA, FULL, SLIDING, read_rope, rope_of, ropes_by_type
from roots_compress.families.switches import ACTIVATIONS, MOST_LAYERS, Switches
from roots_compress.models.ops.attention import Attention, QkNorm, Rope
from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.ops.stream import LayerInputs
from roots_compress.models.spec import Embeddings, Layer, ModelSpec, Norm, Stack

ReadWindows = Callable[[Switches, int], Sequence[int | None]]
"""Takes the switches of sliding windows of so many layers, and returns each layer's."""
Biases = Literal["none", "qkv", "qkvo"]
Norms = tuple[Literal["pre_norm", "post_norm"], ...]
"""Where a block has norms."""
BOTH: Norms = ("pre_norm", "post_norm")


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

    def attention(self, **fields: Any) -> Attention:
        """Return attention of these heads; `fields` are its others."""
        return Attention(heads=self.heads, kv_heads=self.kv_heads, head_dim=self.head_dim, **fields)


def read_shape(
    switches: Switches,
    *,
    head_dim: int | None = None,
    null_head_dim: bool = False,
    stated_head_dim: bool = False,
    kv_heads: int | None = None,
    null_kv_heads: bool = False,
    whole_heads: bool = False,
    own_heads: bool = True,
    filled: bool = False,
    context: int,
    tied: bool = False,
    eps: float = 1e-6,
    norm: Norm | None = None,
    eps_key: str = "rms_norm_eps",
    activations: Mapping[str, Activation] = ACTIVATIONS,
    activation_key: str = "hidden_act",
    activation: str = "silu",
) -> Shape:
    """Take the numbers of a configuration.

    Args:
        head_dim: the default; None for hidden size over heads.
        null_head_dim: whether null means hidden size over heads; else it is refused, as by transformers.
        stated_head_dim: whether there must be one, as transformers' class has no default.
        kv_heads: the default; None for as many as query heads.
        null_kv_heads: whether null means as many as query heads; else it is refused.
        whole_heads: whether the family's class wants a hidden size that is a multiple of the heads.
        own_heads: whether `head_dim` is read; else it may only say hidden size over heads.
        filled: whether the heads together must be as wide as the hidden size.
        norm: of the family but for its epsilon; an RMS norm if None.
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
    if not own_heads:
        switches.same("head_dim", derived)
    default = head_dim or (None if stated_head_dim else derived)
    size = switches.number("head_dim", default, null=derived if null_head_dim else None)
    if filled and heads * size != width:
        switches.refuse(f"num_attention_heads {heads} times head_dim {size} is not hidden_size {width}")
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
        changed(norm or Norm(), eps=switches.positive(eps_key, eps)),
        function,
        switches.flag("tie_word_embeddings", tied),
    )


def one_window(switches: Switches, layers: int) -> list[int | None]:
    """Take the window of all layers of a family whose layers do not slide by default."""
    return [switches.optional_number("sliding_window")] * layers


def read_biases(switches: Switches, biases: Biases | tuple[bool, bool] | None) -> tuple[bool, bool]:
    """Take the switches of biases in attention: those on queries, keys and values, and on the output.

    Args:
        biases: which projections always have them; None where `attention_bias` decides over all four; or both
            as another key says.
    """
    if isinstance(biases, tuple):
        return biases
    if biases == "qkv":
        switches.same("attention_bias", True)
        switches.same("qkv_bias", True)
        return True, False
    biased = switches.flag("attention_bias", False) if biases is None else biases != "none"
    return biased, biased


def read_decoder(
    switches: Switches,
    *,
    windows: ReadWindows = Switches.no_windows,
    biases: Biases | tuple[bool, bool] | None = None,
    mlp_bias: bool | None = False,
    gated: bool = True,
    qk_norm: QkNorm | None = None,
    scaled: bool = False,
    rope: Rope | None = None,
    ropes: Mapping[str, tuple[str | None, float]] | None = None,
    theta: float = DEFAULT_THETA,
    partial: float | None = None,
    attention: Mapping[str, Any] | None = None,
    norms: Norms = ("pre_norm",),
    parallel: bool = False,
    one_norm: bool = True,
    head: LmHead | None = None,
    **defaults: Any,
) -> ModelSpec:
    """Read the configuration of a decoder like Llama, whose layers are alike but for their windows.

    Args:
        windows: reads those of the layers; a family has none by default.
        mlp_bias: whether feed-forward blocks have biases; None where `mlp_bias` decides.
        qk_norm: of queries and keys but for its epsilon, which is the other norms'.
        scaled: whether embeddings are multiplied by the root of the hidden size.
        rope: the rotary positions, where the caller has read them.
        ropes: as `ropes_by_type` takes them, where those of layers with windows differ.
        partial: the default of the share of a head that they turn; None where that is all of it.
        attention: more fields of all layers' attention.
        parallel: whether both blocks of a layer read the same stream.
        one_norm: whether they then read it through one norm.
        defaults: of the family, as `read_shape` takes them.
    """
    shape = read_shape(switches, **defaults)
    each = windows(switches, shape.layers)
    bias, output_bias = read_biases(switches, biases)
    if qk_norm is not None:
        switches.same("use_qk_norm", True)
        qk_norm = changed(qk_norm, eps=shape.norm.eps)
    if ropes is not None:
        of_kind = ropes_by_type(switches, shape.max_positions, ropes)
    else:
        rope = rope or rope_of(
            switches, read_rope(switches, partial=partial, theta=theta), head_dim=shape.head_dim
        )
        of_kind = {FULL: rope, SLIDING: rope}
    mlp = Mlp(
        channels=shape.channels,
        activation=shape.activation,
        gated=gated,
        bias=switches.flag("mlp_bias", False) if mlp_bias is None else mlp_bias,
    )
    layers = [
        pre_norm_layer(
            shape.attention(
                rope=of_kind[FULL if window is None else SLIDING],
                window=window,
                qk_norm=qk_norm,
                bias=bias,
                output_bias=output_bias,
                **(attention or {}),
            ),
            mlp,
            shape.norm,
            norms=norms,
            parallel=parallel,
            one_norm=one_norm,
        )
        for window in each
    ]
    return decoder_spec(shape, layers, scale=shape.width**0.5 if scaled else 1.0, head=head)


def attending(switches: Switches, types: Any, layers: int, other: str) -> list[bool]:
    """Return which layers attend to all tokens, by what `layer_types` says; the rest are of another type."""
    if not isinstance(types, list) or len(types) != layers or not {*map(str, types)} <= {other, FULL}:
        switches.refuse(f"layer_types must name {FULL} or {other} for each of {layers} layers")
    if FULL not in types:
        switches.refuse("no layer has attention: transformers counts the tokens of a cache by it")
    return [kind == FULL for kind in types]


def pre_norm_layer(
    mixer: OpSpec,
    mlp: OpSpec,
    norm: Norm,
    *,
    norms: Norms = ("pre_norm",),
    parallel: bool = False,
    one_norm: bool = True,
) -> Layer:
    """Return a layer of a block that reads other tokens and a feed-forward block, each with norms.

    Args:
        one_norm: whether parallel blocks share their norm.
    """
    placed = dict.fromkeys(norms, norm)
    return (
        Sublayer.model_validate({"op": mixer, **placed, "parallel": parallel}),
        Sublayer.model_validate({"op": mlp, **placed, "shares_norm": parallel and one_norm}),
    )


def decoder_spec(
    shape: Shape,
    layers: Sequence[Layer],
    *,
    scale: float = 1.0,
    head: LmHead | None = None,
    layer_inputs: LayerInputs | None = None,
) -> ModelSpec:
    """Return a decoder of these layers, with a final norm."""
    return ModelSpec(
        stacks={"decoder": Stack(layers=tuple(layers), final_norm=shape.norm)},
        embeddings=Embeddings(
            vocabulary=shape.vocabulary, width=shape.width, scale=scale, layer_inputs=layer_inputs
        ),
        head=head or LmHead(),
        tied=shape.tied,
        max_positions=shape.max_positions,
    )


def positioned_decoder(
    switches: Switches,
    layers: Sequence[Layer],
    norm: Norm,
    *,
    width: int,
    positions: int,
    learned: bool = True,
    head: LmHead | None = None,
    tied: bool = True,
) -> ModelSpec:
    """Return a decoder of these layers, with a final norm and, unless they turn, a table of positions."""
    return ModelSpec(
        stacks={"decoder": Stack(layers=tuple(layers), final_norm=norm)},
        embeddings=Embeddings(
            vocabulary=switches.number("vocab_size"), width=width, positions=positions if learned else None
        ),
        head=head or LmHead(),
        tied=switches.flag("tie_word_embeddings", tied),
        max_positions=positions,
    )


def each_sublayer(spec: ModelSpec, change: Callable[[Sublayer], Sublayer]) -> ModelSpec:
    """Return a specification with each of its sublayers changed by a function."""
    return spec.with_layers(tuple(tuple(map(change, layer)) for layer in spec.layers))
