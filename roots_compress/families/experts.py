"""What families share whose feed-forward blocks are all mixtures of experts."""

from __future__ import annotations

from typing import Any

from roots_compress.families.decoder import each_sublayer
from roots_compress.families.switches import Switches
from roots_compress.models.ops.base import changed
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.sublayer import Sublayer
from roots_compress.models.spec import ModelSpec

TRAINING = ("output_router_logits", "router_aux_loss_coef", "router_jitter_noise")


def with_experts(
    switches: Switches, spec: ModelSpec, *, key: str, experts: int, chosen: int, renormalise: bool
) -> ModelSpec:
    """Return a model with experts of the widths of its feed-forward blocks in their place.

    Args:
        switches: the configuration.
        spec: of the model with feed-forward blocks.
        key: of the number of experts.
        experts: its default.
        chosen: the default of the experts that a token goes through.
        renormalise: whether the chosen experts' weights are divided by their sum. A softmax over the chosen
            experts' logits alone gives the same.
    """
    for unread in TRAINING:
        switches.take(unread)
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


def without_experts(spec: ModelSpec, key: str) -> tuple[ModelSpec, dict[str, Any]]:
    """Return what `with_experts` was given, and the keys that it took; `key` is as there.

    Raises:
        ValueError: the model has no experts.
    """
    moe = spec.layers[0][-1].op if spec.layers else None
    if not isinstance(moe, Moe):
        raise ValueError("it has no experts")
    mlp = Mlp(channels=moe.channels, activation=moe.activation)
    plain = each_sublayer(spec, lambda each: changed(each, op=mlp) if isinstance(each.op, Moe) else each)
    return plain, {key: moe.experts, "num_experts_per_tok": moe.chosen}
