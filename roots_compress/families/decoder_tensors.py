"""What Llama-like families share: the place of each tensor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from roots_compress.families.base import Copy, Rule, Transform
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import OpSpec
from roots_compress.models.spec import ModelSpec

NORM_NAMES = {"self_attn_pre_norm": "input_layernorm", "mlp_pre_norm": "post_attention_layernorm"}
"""Modules of a layer that a Llama calls otherwise."""


def decoder_rules(
    spec: ModelSpec, *, norms: Mapping[str, str] = NORM_NAMES, gain: Transform | None = None
) -> Iterator[Rule]:
    """Yield the place of each tensor of a Llama-like decoder, whose blocks are named as ours.

    Args:
        spec: of the model.
        norms: the family's names of the norms of a layer, by ours.
        gain: what is done to the gains of norms, if they are not stored as they are.
    """
    gain = gain or Copy()
    yield Rule("embed_tokens.weight", ("model.embed_tokens.weight",))
    for index, layer in enumerate(spec.layers):
        prefix = f"layers.{index}."
        for sublayer in layer:
            for norm in ("pre_norm", "post_norm"):
                if getattr(sublayer, norm) is not None:
                    ours = f"{sublayer.name}_{norm}"
                    yield Rule(f"{prefix}{norms[ours]}.weight", (f"model.{prefix}{ours}.weight",), gain)
            yield from block_rules(sublayer.op, prefix + sublayer.name, spec.width)
            if isinstance(sublayer.op, Attention) and sublayer.op.qk_norm is not None:
                for name in ("q_norm", "k_norm"):
                    stem = f"{prefix}{sublayer.name}.{name}.weight"
                    yield Rule(stem, (f"model.{stem}",), gain)
    yield Rule("norm.weight", ("model.norm.weight",), gain)
    yield Rule("lm_head.weight", ("lm_head.weight",))


def block_rules(op: OpSpec, module: str, width: int) -> Iterator[Rule]:
    """Yield the place of each linear layer of a block, by its own names."""
    for name, matrix in op.matrices(width).items():
        for part in ("weight", "bias") if matrix.bias else ("weight",):
            yield Rule(f"{module}.{name}.{part}", (f"model.{module}.{name}.{part}",))
