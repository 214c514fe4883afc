"""Mamba-2 in configurations, whose keys the families that have it share."""

from __future__ import annotations

from typing import Any

from roots_compress.families.switches import Switches
from roots_compress.families.values import shown
from roots_compress.models.ops.linear_attention import Mamba2

INFINITE = ([float("inf")], ["Infinity"], [{"__float__": "Infinity"}])
"""An infinite number, as versions of transformers write it."""


def read_mamba2(switches: Switches, inner: int, named: str, *, eps: float, normalised: bool = True) -> Mamba2:
    """Take the numbers of Mamba-2.

    Args:
        inner: channels of its heads together.
    """
    heads = switches.number("mamba_n_heads", 128)
    if switches.said("mamba_d_head", None) == "auto":
        switches.take("mamba_d_head")
    size = switches.number("mamba_d_head", max(1, inner // heads))
    if heads * size != inner:
        switches.refuse(f"mamba_n_heads {heads} times mamba_d_head {size} is not {named} {inner}")
    if switches.flag("mamba_proj_bias", False):
        switches.refuse("mamba_proj_bias is true; projections of Mamba-2 with biases are not supported")
    limit = switches.take("time_step_limit", [0.0, float("inf")])
    if not isinstance(limit, list) or limit[:1] != [0.0] or limit[1:] not in INFINITE:
        switches.refuse(f"time_step_limit is {shown(limit)}; bounds on steps are not supported")
    return Mamba2(
        key_heads=switches.number("mamba_n_groups", 1),
        value_heads=heads,
        key_dim=switches.number("mamba_d_state", 256),
        value_dim=size,
        kernel=switches.number("mamba_d_conv", 4),
        bias=switches.flag("mamba_conv_bias", True),
        eps=eps,
        normalised=normalised,
    )


def write_mamba2(mamba: Mamba2) -> dict[str, Any]:
    """Return the keys that `read_mamba2` takes."""
    return {
        "mamba_n_heads": mamba.value_heads,
        "mamba_d_head": mamba.value_dim,
        "mamba_n_groups": mamba.key_heads,
        "mamba_d_state": mamba.key_dim,
        "mamba_d_conv": mamba.kernel,
        "mamba_conv_bias": mamba.bias,
    }
