"""Experts routed as in DeepSeek-V3, with a shared expert: what its families have in common."""

from __future__ import annotations

from typing import Any

from roots_compress.families.decoder_tensors import NORM_NAMES
from roots_compress.families.experts import TRAINING, Shared, first_moe
from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.ops.moe import Groups, Moe
from roots_compress.models.spec import ModelSpec

NAMES = {
    **NORM_NAMES,
    "shared_mlp_pre_norm": "post_attention_layernorm",
    **{f"shared_mlp.{name}_proj": f"mlp.shared_experts.{name}_proj" for name in ("gate", "up", "down")},
    "mlp.selection_bias": "mlp.gate.e_score_correction_bias",
}
EXPERTS, CHOSEN, CHANNELS, SHARED = (
    "n_routed_experts",
    "num_experts_per_tok",
    "moe_intermediate_size",
    "n_shared_experts",
)
GUESSING = ("num_nextn_predict_layers", "num_mtp_layers")
"""Layers that guess further tokens, which are left out."""
LEAST_SUM = 1e-20


def read_routed(
    switches: Switches,
    activation: Activation,
    *,
    experts: int | None,
    chosen: int | None,
    channels: int,
    shared: int | None,
    renormalise: bool,
    groups: tuple[int, int] = (1, 1),
    scale: float = 1.0,
) -> Shared:
    """Take the keys of experts with a sigmoid router, and of the shared expert.

    Args:
        experts: the default of how many there are; None where there is none.
        chosen: the same of the experts that a token goes through.
        channels: the default of each expert's.
        shared: the default number of shared experts: one block as wide as all of them.
        renormalise: the default of whether the chosen experts' weights are divided by their sum.
        groups: the defaults of the groups of experts, and of those that a token's experts are chosen from.
        scale: the default of the factor on the weights.
    """
    switches.renamed("num_local_experts", EXPERTS)
    switches.leave(*TRAINING, *GUESSING)
    width, count = switches.number(CHANNELS, channels), switches.number(EXPERTS, experts)
    moe = Moe(
        experts=count,
        chosen=switches.number(CHOSEN, chosen),
        channels=width,
        activation=activation,
        renormalise=switches.flag("norm_topk_prob", renormalise),
        scores="sigmoid",
        selection_bias=True,
        groups=read_groups(switches, count, groups, best=2),
        least_sum=LEAST_SUM,
        scale=switches.positive("routed_scaling_factor", scale),
    )
    return Shared(moe, shared_mlp(switches, width, activation, SHARED, shared))


def read_groups(
    switches: Switches, experts: int, defaults: tuple[int | None, int | None], *, best: int
) -> Groups | None:
    """Take the groups of experts, and those that a token's are chosen from; None where all are one."""
    count, chosen = switches.number("n_group", defaults[0]), switches.number("topk_group", defaults[1])
    if experts % count or experts // count < best or chosen > count:
        switches.refuse(
            f"n_group is {count}, topk_group {chosen}, and {EXPERTS} {experts}: groups are equal, of "
            f"{best} experts at least, and no more are chosen than there are"
        )
    return Groups(count=count, chosen=chosen, best=best) if count > 1 else None


def shared_mlp(
    switches: Switches,
    width: int,
    activation: Activation,
    key: str,
    default: int | None,
    *,
    bias: bool = False,
) -> Mlp:
    """Take the number of shared experts, and return it."""
    return Mlp(channels=width * switches.number(key, default), activation=activation, bias=bias, shared=True)


def read_leading(switches: Switches, layers: int, default: int) -> list[bool]:
    """Take how many of the first layers have no experts, and return which layers have."""
    dense = switches.take("first_k_dense_replace", default)
    if type(dense) is not int or not 0 <= dense < layers:
        switches.refuse(
            f"first_k_dense_replace is {shown(dense)}; it must be 0 or more, and below {layers} layers"
        )
    return [index >= dense for index in range(layers)]


def routed_blocks(spec: ModelSpec) -> tuple[Moe, Mlp | None]:
    """Return the first mixture of experts, and the first shared expert.

    Raises:
        ValueError: the model has no experts.
    """
    shared = (op for _, op in spec.blocks() if isinstance(op, Mlp) and op.shared)
    return first_moe(spec), next(shared, None)


def sharing(moe: Moe, shared: Mlp | None) -> int:
    """Return how many experts' channels the expert for all tokens has.

    Raises:
        ValueError: there is none, or its channels are no multiple of theirs.
    """
    if shared is None or shared.channels % moe.channels:
        raise ValueError("the shared expert's channels are no multiple of the routed experts'")
    return shared.channels // moe.channels


def sparse_layers(spec: ModelSpec) -> list[bool]:
    """Return which layers have experts."""
    return [any(isinstance(each.op, Moe) for each in layer) for layer in spec.layers]


def dense_channels(spec: ModelSpec) -> dict[str, int]:
    """Return the width of the feed-forward blocks of layers without experts, if there are any."""
    plain = (each.op for layer in spec.layers for each in layer if isinstance(each.op, Mlp))
    found = next((op.channels for op in plain if not op.shared), None)
    return {} if found is None else {"intermediate_size": found}


def write_routed(spec: ModelSpec) -> dict[str, Any]:
    """Return the keys that `read_routed` and `read_leading` take, and the width of other layers.

    Raises:
        ValueError: the model has no routed experts, or no shared expert.
    """
    moe, shared = routed_blocks(spec)
    groups = moe.groups or Groups(count=1, chosen=1)
    return {
        **dense_channels(spec),
        EXPERTS: moe.experts,
        CHOSEN: moe.chosen,
        CHANNELS: moe.channels,
        SHARED: sharing(moe, shared),
        "norm_topk_prob": moe.renormalise,
        "routed_scaling_factor": moe.scale,
        "n_group": groups.count,
        "topk_group": groups.chosen,
        "first_k_dense_replace": sparse_layers(spec).index(True),
    }
