"""The experts beside the feed-forward blocks of Gemma 4, whose router has a gain of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from roots_compress.families.base import Computed
from roots_compress.families.transforms import Tensor
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

EXPERTS = (
    *("experts.gate_up_proj", "experts.down_proj", "router.proj.weight", "router.scale"),
    *("router.per_expert_scale", "pre_feedforward_layernorm_2.weight"),
)


def experts_beside(spec: ModelSpec, names: Sequence[str] = EXPERTS, layers: str = "layers") -> list[Computed]:
    """Return the place of each layer's experts; `names` are the source's, as in `EXPERTS`.

    The norm before the experts becomes the router's too: its gain goes into the experts' matrices, and the
    router's into the router's. The factor on what an expert gives goes into its last matrix.
    """
    found = []
    for place, op in spec.blocks():
        if not isinstance(op, Moe):
            continue
        theirs, ours = f"{layers}.{place.layer}.", spec.path(place)
        matrices = [f"{ours}.{name}.weight" for name in op.matrices(spec.width)]
        targets = (*matrices, f"{ours}.router.weight", f"{ours}_pre_norm.weight")
        sources = tuple(theirs + name for name in names)
        make = partial(_made, sources, op, spec.width)
        found.append(Computed(sources, targets, make, partial(_stacked, sources)))
    return found


def _made(sources: Sequence[str], op: Moe, width: int, tensors: Mapping[str, Tensor]) -> list[Tensor]:
    """Return each expert's gate, up and down; the router; and a norm without a gain.

    A tensor of another shape is returned for each of them, to be refused.
    """
    count, channels = op.experts, op.channels
    wanted = (
        (count, 2 * channels, width),
        (count, width, channels),
        (count, width),
        (width,),
        (count,),
        (width,),
    )
    given = [tensors[name].float() for name in sources]
    for tensor, shape in zip(given, wanted, strict=True):
        if tensor.shape != shape:
            return [tensor] * (3 * count + 2)
    gate_up, down, router, own, factors, gain = given
    found = []
    for both, last, factor in zip(gate_up * gain, down, factors, strict=True):
        found += [each.clone() for each in (*both.chunk(2), last * factor)]
    return [*found, router * own * width**-0.5, gain.new_ones(gain.shape)]


def _stacked(sources: Sequence[str], tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return what `_made` makes them of again: the norm's gain is the router's too."""
    import torch

    *matrices, router, gain = tensors
    gates, ups, downs = (torch.stack(matrices[part::3]) for part in range(3))
    written = (
        torch.cat((gates, ups), 1),
        downs,
        router * len(gain) ** 0.5,
        gain,
        gain.new_ones(len(router)),
        gain,
    )
    return {name: tensor.clone() for name, tensor in zip(sources, written, strict=True)}
