"""What families with mixtures of experts share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from roots_compress.families.decoder import each_sublayer, pre_norm_layer
from roots_compress.families.switches import Switches
from roots_compress.models.ops.base import OpSpec, changed
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Layer, ModelSpec, Norm

SHARED_NAMES = {
    "shared_mlp_pre_norm": "post_attention_layernorm",
    **{f"shared_mlp.{name}_proj": f"mlp.shared_expert.{name}_proj" for name in ("gate", "up", "down")},
    "shared_mlp.router": "mlp.shared_expert_gate",
}
"""Modules of a layer with a shared expert, by Qwen's names."""
STACKED_NAMES = {
    "mlp.experts.{}.gate_proj": "mlp.experts.gate_up_proj",
    "mlp.experts.{}.up_proj": "mlp.experts.gate_up_proj",
    "mlp.experts.{}.down_proj": "mlp.experts.down_proj",
}
"""Experts' matrices where they are stacked; the names of such tensors do not end in `.weight`."""
TRAINING = ("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")


def first_moe(spec: ModelSpec) -> Moe:
    """Return the first mixture of experts.

    Raises:
        ValueError: the model has none.
    """
    moe = next((op for _, op in spec.blocks() if isinstance(op, Moe)), None)
    if moe is None:
        raise ValueError("it has no experts")
    return moe


def with_experts(
    switches: Switches, spec: ModelSpec, *, key: str, experts: int, chosen: int, renormalise: bool
) -> ModelSpec:
    """Return a model with experts of the widths of its feed-forward blocks in their place.

    Args:
        chosen: the default of the experts that a token goes through.
        renormalise: whether the chosen experts' weights are divided by their sum. A softmax over the chosen
            experts' logits alone gives the same.
    """
    switches.leave(*TRAINING)
    count, best = switches.number(key, experts), switches.number("num_experts_per_tok", chosen)

    def change(each: Sublayer) -> Sublayer:
        if not isinstance(each.op, Mlp):
            return each
        moe = Moe(
            experts=count,
            chosen=best,
            channels=each.op.channels,
            activation=each.op.activation,
            renormalise=renormalise,
        )
        return changed(each, op=moe)

    return each_sublayer(spec, change)


def without_experts(
    spec: ModelSpec, key: str, channels: int | None = None
) -> tuple[ModelSpec, Moe, dict[str, Any]]:
    """Return a model with feed-forward blocks in the place of experts, the experts, and keys of them.

    Args:
        channels: of the feed-forward blocks, where no layer has one; None for those of each expert.

    Raises:
        ValueError: the model has no experts.
    """
    moe = first_moe(spec)
    given = Mlp(channels=channels or moe.channels, activation=moe.activation)
    mlp = next((op for _, op in spec.blocks() if isinstance(op, Mlp)), given)
    plain = each_sublayer(spec, lambda each: changed(each, op=mlp) if isinstance(each.op, Moe) else each)
    return plain, moe, {key: moe.experts, "num_experts_per_tok": moe.chosen}


def read_moe(
    switches: Switches,
    activation: Activation,
    *,
    experts: int,
    chosen: int,
    channels: int,
    renormalise: bool | None,
) -> Moe:
    """Take what a Qwen says of experts; all but the last are defaults.

    Args:
        renormalise: whether the chosen experts' weights are divided by their sum; None where they are, and no
            key says it.
    """
    switches.leave(*TRAINING)
    return Moe(
        experts=switches.number("num_experts", experts),
        chosen=switches.number("num_experts_per_tok", chosen),
        channels=switches.number("moe_intermediate_size", channels),
        activation=activation,
        renormalise=True if renormalise is None else switches.flag("norm_topk_prob", renormalise),
    )


@dataclass(frozen=True)
class Shared:
    """Routed experts, and a shared expert if there is one."""

    moe: Moe
    mlp: Mlp | None

    def layer(self, mixer: OpSpec, norm: Norm) -> Layer:
        """Return a layer of a block that reads other tokens and these, each behind a norm."""
        if self.mlp is None:
            return pre_norm_layer(mixer, self.moe, norm)
        return (
            Sublayer.model_validate({"op": mixer, "pre_norm": norm}),
            Sublayer(op=self.mlp, pre_norm=norm, parallel=True),
            Sublayer(op=self.moe, pre_norm=norm, shares_norm=True),
        )


def read_shared(
    switches: Switches, activation: Activation, *, channels: tuple[int, int], **defaults: Any
) -> Shared:
    """Take the keys of a Qwen's routed and shared experts.

    Args:
        channels: the defaults of each expert's, and of that for all.
    """
    moe = read_moe(switches, activation, channels=channels[0], **defaults)
    width = switches.number("shared_expert_intermediate_size", channels[1])
    return Shared(moe, Mlp(channels=width, activation=activation, weighed=True))


def with_shared(layers: Sequence[Layer], shared: Shared, sparse: Sequence[bool]) -> tuple[Layer, ...]:
    """Return layers with experts in the place of the feed-forward block, where there are any."""
    found = []
    for layer, has_experts in zip(layers, sparse, strict=True):
        mixer, mlp = layer
        assert mlp.pre_norm is not None
        found.append(shared.layer(mixer.op, mlp.pre_norm) if has_experts else layer)
    return tuple(found)


def write_shared(spec: ModelSpec, renormalise: bool) -> dict[str, Any]:
    """Return the keys that `read_shared` takes; `renormalise` says whether there is one of that.

    Raises:
        ValueError: the model has no routed experts, or no shared expert.
    """
    moe = first_moe(spec)
    mlp = next((op for _, op in spec.blocks() if isinstance(op, Mlp) and op.weighed), None)
    if mlp is None:
        raise ValueError("it has no shared expert")
    return {
        "num_experts": moe.experts,
        "num_experts_per_tok": moe.chosen,
        "moe_intermediate_size": moe.channels,
        "shared_expert_intermediate_size": mlp.channels,
        **({"norm_topk_prob": moe.renormalise} if renormalise else {}),
    }
