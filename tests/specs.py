"""Specifications that version 1's fields do not reach: norms in other places, caps, experts, encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from roots_compress.families.seq2seq import decoder_layer, encoder_layer
from roots_compress.models.ops.attention import Attention, Latent, ProportionalScaling, QkNorm, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.heads import (
    ClassificationHead,
    EmbeddingHead,
    LmHead,
    MaskedLmHead,
    Seq2SeqHead,
)
from roots_compress.models.ops.linear_attention import Mamba2
from roots_compress.models.ops.mlp import LayerInput, Mlp
from roots_compress.models.ops.moe import Clamp, Groups, Moe
from roots_compress.models.ops.positions import Relative
from roots_compress.models.ops.stack import Op, Sublayer
from roots_compress.models.ops.stream import LayerInputs
from roots_compress.models.spec import Embeddings, Head, Layer, ModelSpec, Norm, Stack
from tests.tiny import VOCAB_SIZE, tiny_config

LAYER_NORM = Norm(kind="layer_norm")
OVER_PROJECTIONS = QkNorm(over="projection")


def spec_of(change: Callable[[Sublayer], Sublayer], **fields: Any) -> ModelSpec:
    """Return the tiny specification, each of its sublayers changed by a function."""
    spec = tiny_config(**fields).spec
    return spec.with_layers(tuple(tuple(map(change, layer)) for layer in spec.layers))


def with_attention(kv_heads: int = 1, **changes: Any) -> ModelSpec:
    """Return the tiny specification with other numbers of its attentions."""

    def change(each: Sublayer) -> Sublayer:
        if not isinstance(each.op, Attention):
            return each
        return changed(each, op=changed(each.op, kv_heads=kv_heads, **changes))

    return spec_of(change)


def with_experts(experts: int = 4, chosen: int = 2, channels: int = 24, **more: Any) -> ModelSpec:
    """Return the tiny specification with a mixture of experts in place of each feed-forward block."""
    moe = Moe(experts=experts, chosen=chosen, channels=channels, **more)
    return spec_of(lambda each: each if isinstance(each.op, Attention) else changed(each, op=moe))


def gemma() -> ModelSpec:
    """Return one with norms after its blocks too, and caps on logits."""
    spec = spec_of(lambda each: changed(each, post_norm=each.pre_norm))
    return changed(spec, head=LmHead(softcap=3.0))


def bert(head: Head | None = None, *, tied: bool = True) -> ModelSpec:
    """Return an encoder that normalises its embeddings, and the stream after each addition."""

    def change(each: Sublayer) -> Sublayer:
        op = changed(each.op, causal=False) if isinstance(each.op, Attention) else each.op
        return changed(each, op=op, pre_norm=None, stream_norm=LAYER_NORM)

    spec = spec_of(change).with_embeddings(norm=LAYER_NORM, token_types=2, positions=128)
    stack = changed(spec.stack, final_norm=None)
    return changed(spec, stacks={"encoder": stack}, head=head or EmbeddingHead(), tied=tied)


def stream_norms() -> ModelSpec:
    """Return a causal LM that normalises the stream after each addition, and nothing else."""
    spec = spec_of(lambda each: changed(each, pre_norm=None, stream_norm=LAYER_NORM))
    return changed(spec, stacks={"decoder": changed(spec.stack, final_norm=None)})


def parallel(**fields: Any) -> ModelSpec:
    """Return one whose blocks read one stream through one norm, without bias, and queries normed late."""

    def change(each: Sublayer) -> Sublayer:
        norm = Norm(kind="layer_norm", bias=False)
        if not isinstance(each.op, Attention):
            squared = changed(each.op, activation="relu2", gated=False)
            return changed(each, op=squared, pre_norm=norm, shares_norm=True)
        op = changed(each.op, qk_norm=QkNorm(after_rope=True))
        return changed(each, op=op, pre_norm=norm, parallel=True)

    return changed(spec_of(change, **fields), head=LmHead(bias=True))


def one_norm() -> ModelSpec:
    """Return one whose blocks read one stream through one RMS norm, and nothing else."""
    return spec_of(
        lambda each: (
            changed(each, parallel=True)
            if isinstance(each.op, Attention)
            else changed(each, shares_norm=True)
        )
    )


def sharing(head_dim: int = 8) -> ModelSpec:
    """Return one of four layers, of two kinds, the last two of which read the keys of the first two."""
    norm, inputs = Norm(), LayerInputs(channels=6)

    def layer(window: int | None, shared: Literal["gives", "takes"]) -> Layer:
        full = window is None
        scaling = ProportionalScaling(partial_rotary_factor=0.5)
        attention = Attention(
            heads=4,
            kv_heads=1 if full else 2,
            head_dim=2 * head_dim if full else head_dim,
            rope=Rope(scaling=scaling) if full else Rope(theta=100.0),
            window=window,
            qk_norm=QkNorm(values=True),
            scale=0.15,
            keys_as_values=full and shared == "gives",
            sharing=shared,
        )
        ops: tuple[Op, ...] = (attention, Mlp(channels=24), LayerInput(channels=inputs.channels))
        pre_norms = (norm, norm, None)
        return tuple(
            Sublayer(op=op, pre_norm=pre_norm, post_norm=norm, stream_scale=pre_norm is None)
            for op, pre_norm in zip(ops, pre_norms, strict=True)
        )

    layers = (layer(5, "gives"), layer(None, "gives"), layer(5, "takes"), layer(None, "takes"))
    spec = tiny_config().spec
    embeddings = changed(spec.embeddings, layer_inputs=inputs, scale=30.0)
    stack = changed(spec.stack, layers=layers)
    return changed(spec, stacks={"decoder": stack}, embeddings=embeddings)


def experts_beside() -> ModelSpec:
    """Return one with experts beside its feed-forward blocks, and a norm of what both give together."""
    norm = Norm()
    op = Moe(experts=4, chosen=2, channels=24, beside_mlp=True)
    experts = Sublayer(op=op, pre_norm=norm, post_norm=norm, joint_norm=norm)
    attention, mlp = tiny_config().spec.layers[0]
    layer = (attention, changed(mlp, parallel=True, post_norm=norm), experts)
    return tiny_config().spec.with_layers((layer, layer))


def shared_expert(*, weighed: bool = True) -> ModelSpec:
    """Return one with experts, and one more that all tokens go through, weighed by a sigmoid or not."""
    norm = Norm()
    attention, _ = tiny_config().spec.layers[0]
    layer = (
        attention,
        Sublayer(op=Mlp(channels=40, weighed=weighed, shared=not weighed), pre_norm=norm, parallel=True),
        Sublayer(op=Moe(experts=4, chosen=2, channels=24), pre_norm=norm, shares_norm=True),
    )
    return tiny_config().spec.with_layers((layer, layer))


def latent(*, head_dim: int = 16, **of_latent: Any) -> ModelSpec:
    """Return one whose keys and values are made of one vector, the first half of each key turned."""
    sizes = {"rank": 12, "query_rank": 10, "value_dim": head_dim // 2 + 2, **of_latent}
    rope = Rope(rotary_dim=head_dim // 2)
    return with_attention(4, head_dim=head_dim, rope=rope, scale=0.3, latent=Latent(**sizes))


def beside_attention() -> ModelSpec:
    """Return one whose attention and Mamba-2 read one norm, and are added."""
    norm = Norm()
    sizes = {"key_heads": 2, "value_heads": 4, "key_dim": 6, "value_dim": 8, "kernel": 4}
    op = Mamba2.model_validate({**sizes, "bias": True, "normalised": False})
    attention, mlp = tiny_config().spec.layers[0]
    mamba = Sublayer(op=op, pre_norm=norm, shares_norm=True)
    layer = (changed(attention, parallel=True), mamba, mlp)
    return tiny_config().spec.with_layers((layer, layer))


def clamped(*, head_dim: int = 8, channels: int = 24) -> ModelSpec:
    """Return one with sinks, and with experts that have biases and bounds."""
    spec = with_experts(channels=channels, bias=True, clamp=Clamp(limit=1.0))

    def change(each: Sublayer) -> Sublayer:
        if not isinstance(each.op, Attention):
            return each
        return changed(each, op=changed(each.op, sinks=True, head_dim=head_dim))

    return spec.with_layers(tuple(tuple(map(change, layer)) for layer in spec.layers))


def convolving(*, bias: bool = False, kernel: int = 3, **changes: Any) -> ModelSpec:
    """Return one with a short convolution in its first layer, and attention in its second."""
    spec = with_attention(kv_heads=2, **changes)
    conv = ShortConv(channels=24, kernel=kernel, bias=bias)
    first = changed(spec.layers[0][0], op=conv)
    return spec.with_layers(((first, spec.layers[0][1]), spec.layers[1]))


def remembering(*, head_dim: int = 8, kind: str = "gated_delta_net", **changes: Any) -> ModelSpec:
    """Return one with linear attention in its first layer, and attention with a gate in its second."""
    spec = with_attention(kv_heads=2, head_dim=head_dim, gated=True)
    sizes = {"key_heads": 2, "value_heads": 4, "key_dim": 6, "value_dim": 8, "kernel": 4}
    first = Sublayer.model_validate({"op": {"kind": kind, **sizes, **changes}, "pre_norm": Norm()})
    return spec.with_layers(((first, spec.layers[0][1]), spec.layers[1]))


BY_SIGMOIDS: dict[str, Any] = {"scores": "sigmoid", "selection_bias": True, "scale": 2.5}
"""How experts are chosen and weighed."""
IN_GROUPS: dict[str, Any] = {
    **BY_SIGMOIDS,
    "experts": 8,
    "groups": Groups(count=2, chosen=1),
    "least_sum": 1e-20,
}
"""The same, from the best group."""
SPECS: dict[str, dict[str, Any]] = {
    "norms over the projection": {"spec": with_attention(kv_heads=2, qk_norm=OVER_PROJECTIONS)},
    "norms of outputs": {"spec": spec_of(lambda each: changed(each, post_norm=Norm()))},
    "norms of the stream": {
        "spec": spec_of(lambda each: changed(each, pre_norm=None, stream_norm=Norm()), attention_bias=True)
    },
    "experts": {"spec": with_experts()},
    "experts by sigmoids": {"spec": with_experts(**BY_SIGMOIDS)},
    "experts in groups": {"spec": with_experts(**IN_GROUPS)},
    "parallel": {"spec": parallel()},
    "convolution": {"spec": convolving(bias=True)},
    "linear attention": {"spec": remembering()},
    "Mamba-2": {"spec": remembering(kind="mamba2", bias=True)},
    "sinks": {"spec": with_attention(kv_heads=2, sinks=True)},
    "shared keys": {"spec": sharing()},
    "experts beside": {"spec": experts_beside()},
    "shared expert": {"spec": shared_expert()},
    "shared expert as it is": {"spec": shared_expert(weighed=False)},
    "latent": {"spec": latent()},
    "latent, queries not": {"spec": latent(query_rank=None, value_dim=16)},
    "attention beside Mamba-2": {"spec": beside_attention()},
    "clamped experts": {"spec": with_experts(bias=True, clamp=Clamp(limit=1.0))},
}
"""Arguments of `tiny_model`, by what is unlike other models."""
KINDS: dict[str, ModelSpec] = {
    "post-norms and a capped head": gemma(),
    "stream norms": stream_norms(),
    "experts": with_experts(),
    "convolution": convolving(),
    "linear attention": remembering(),
    "shared keys": sharing(),
    "sinks, clamped experts": clamped(),
    "shared expert": shared_expert(),
    "latent": latent(),
    "attention beside Mamba-2": beside_attention(),
    "parallel blocks, norms after positions": parallel(),
    "partial rotary, norms of whole projections": with_attention(
        rope=Rope(rotary_dim=4), qk_norm=OVER_PROJECTIONS
    ),
}
"""What each way to quantize must cope with."""
ENCODERS: dict[str, ModelSpec] = {
    "masked tokens": bert(MaskedLmHead()),
    "masked tokens, untied": bert(MaskedLmHead(), tied=False),
    "labels": bert(ClassificationHead(labels=3)),
    "embeddings": bert(EmbeddingHead()),
}


def seq2seq(*, bias: bool = False, tied: bool = True) -> ModelSpec:
    """Return an encoder and a decoder of two layers each, with distances in place of positions."""
    norm, relative = Norm(), Relative(buckets=8, max_distance=20)
    attention = Attention(heads=4, kv_heads=4, head_dim=8, scale=0.5, relative=relative, causal=False)
    cross = changed(attention, relative=None, source="cross", kv_heads=2, bias=bias)
    mlp = Mlp(channels=48, activation="relu", gated=bias)
    return ModelSpec(
        stacks={
            "encoder": Stack(layers=(encoder_layer(attention, mlp, norm),) * 2, final_norm=norm),
            "decoder": Stack(
                layers=(decoder_layer(changed(attention, causal=True), cross, mlp, norm),) * 2,
                final_norm=norm,
            ),
        },
        embeddings=Embeddings(vocabulary=VOCAB_SIZE, width=32),
        head=Seq2SeqHead(start=2, bias=bias, scale=0.5),
        tied=tied,
        max_positions=128,
    )


SEQ2SEQ: dict[str, ModelSpec] = {"tied": seq2seq(), "untied, biases": seq2seq(bias=True, tied=False)}
"""An encoder and a decoder together."""
