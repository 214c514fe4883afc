"""What Llama-like families share: the place of each tensor."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from roots_compress.families.base import Computed, Rule
from roots_compress.families.transforms import (
    COPY,
    ByHead,
    Each,
    Parts,
    Rows,
    Stacked,
    Transform,
    in_front,
    in_pairs,
)
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.conv import ShortConv
from roots_compress.models.ops.linear_attention import LinearAttention
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.moe import Moe
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import ModelSpec, Norm

NORM_NAMES = {"self_attn_pre_norm": "input_layernorm", "mlp_pre_norm": "post_attention_layernorm"}
"""Modules of a layer that a Llama calls otherwise."""
NUMBER = re.compile(r"\d+")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
GATE_UP = ("mlp.gate_proj", "mlp.up_proj")


def decoder_rules(
    spec: ModelSpec,
    *,
    names: Mapping[str, str] = NORM_NAMES,
    outer: Mapping[str, str] | None = None,
    gain: Transform | None = None,
    paired: bool = False,
    by_head: bool = False,
    by_key_head: Collection[str] = (),
    positions: Transform = COPY,
    computed: Sequence[Computed] = (),
) -> Iterator[Rule]:
    """Yield the place of each tensor of a Llama-like decoder, whose blocks are named as ours.

    Args:
        names: the family's names of a layer's modules, by ours, where they differ. Linear layers of one name
            are one matrix, its rows in their order. `{}` is the number of an expert; experts' layers of a
            name without it are stacked.
        outer: the same of the modules outside the layers, and of `layers` itself.
        gain: what is done to the gains of norms, if they are not stored as they are.
        paired: whether rotary positions turn adjacent channels.
        by_head: whether the rows of attention's matrices that are one lie head by head.
        by_key_head: the family's names of matrices of linear attention whose rows lie key head by key head.
        computed: the places of tensors of the layers that are left out here.
    """
    outer, gain = outer or {}, gain or COPY
    made = {target for each in computed for target in each.targets}
    yield Rule(f"{outer.get('embed_tokens', 'embed_tokens')}.weight", ("model.embed_tokens.weight",))
    if spec.embeddings.positions is not None:
        name = outer.get("embed_positions", "embed_positions")
        yield Rule(f"{name}.weight", ("model.embed_positions.weight",), positions)
    for index, layer in enumerate(spec.layers):
        theirs, ours = f"{outer.get('layers', 'layers')}.{index}.", f"model.layers.{index}."
        norms = {
            f"{each.name}_{place}": found
            for each in layer
            for place in ("pre_norm", "post_norm", "joint_norm")
            if (found := getattr(each, place)) is not None and not (place == "pre_norm" and each.shares_norm)
        }
        rules: list[Rule] = []
        for name, norm in norms.items():
            rules += norm_rules(theirs + names.get(name, name), ours + name, norm, gain)
        for sublayer in layer:
            found = _block_rules(
                sublayer, spec.width, names, gain, paired=paired, by_head=by_head, by_key_head=by_key_head
            )
            for rule in found:
                targets = tuple(ours + each for each in rule.targets)
                rules.append(Rule(theirs + rule.source, targets, rule.transform))
        yield from (rule for rule in rules if made.isdisjoint(rule.targets))
    if spec.stack.final_norm is not None:
        yield from norm_rules(outer.get("norm", "norm"), "model.norm", spec.stack.final_norm, gain)
    yield Rule(f"{outer.get('lm_head', 'lm_head')}.weight", ("lm_head.weight",))


def norm_rules(source: str, target: str, norm: Norm, gain: Transform) -> Iterator[Rule]:
    """Yield the place of the gain of a norm, and of its bias."""
    for part in norm.parts:
        yield Rule(f"{source}.{part}", (f"{target}.{part}",), gain if part == "weight" else COPY)


def _block_rules(
    sublayer: Sublayer,
    width: int,
    names: Mapping[str, str],
    gain: Transform,
    *,
    paired: bool,
    by_head: bool,
    by_key_head: Collection[str],
) -> Iterator[Rule]:
    """Yield the place of each tensor of a block within its layer."""
    op = sublayer.op
    matrices = {f"{sublayer.name}.{each}": matrix for each, matrix in op.matrices(width).items()}
    turned = {f"{sublayer.name}.{each}_proj" for each in "qk"}
    for theirs, ours in _joined(matrices, names).items():
        transform: Transform = COPY
        changes: tuple[Each, ...] = ()
        if len(ours) > 1 and isinstance(op, Moe):
            transform = Stacked(op.experts, len(ours) // op.experts)
        elif isinstance(op, Attention) and op.latent is not None:
            transform = _of_latent(op, [each.rpartition(".")[2] for each in ours], paired=paired)
        elif len(ours) > 1 and by_head and isinstance(op, Attention):
            # Where keys and values are among them, a group has its query heads' rows first.
            heads = op.kv_heads if f"{sublayer.name}.k_proj" in ours else op.heads
            transform = ByHead(heads, tuple(matrices[each].rows // heads for each in ours))
        elif len(ours) > 1 and theirs in by_key_head and isinstance(op, LinearAttention):
            transform = ByHead(op.key_heads, tuple(matrices[each].rows // op.key_heads for each in ours))
        else:
            if paired and isinstance(op, Attention) and op.rope is not None:
                pairs = in_pairs(op.head_dim, op.turned)
                changes = tuple(pairs if each in turned else COPY for each in ours)
                transform = changes[0]
            if len(ours) > 1:
                rows = Rows(tuple(matrices[each].rows for each in ours))
                transform = Parts(rows, changes) if changes else rows
        for part in ("weight", "bias") if matrices[ours[0]].bias else ("weight",):
            yield Rule(f"{theirs}.{part}", tuple(f"{each}.{part}" for each in ours), transform)
    if isinstance(op, Moe) or (isinstance(op, Mlp) and op.weighed):
        router = f"{sublayer.name}.router"
        for part in ("weight", "bias") if op.bias else ("weight",):
            yield Rule(f"{names.get(router, 'mlp.gate')}.{part}", (f"{router}.{part}",))
        if isinstance(op, Moe) and op.selection_bias:
            name = f"{sublayer.name}.selection_bias"
            yield Rule(names.get(name, name), (name,))
    if isinstance(op, Attention) and op.qk_norm is not None:
        for name in (f"{sublayer.name}.{each}_norm" for each in ("qk" if op.made else "q")):
            yield Rule(f"{names.get(name, name)}.weight", (f"{name}.weight",), gain)
    if isinstance(op, Attention) and op.latent is not None:
        for name in (f"{sublayer.name}.{each}" for each in op.latent.norms):
            yield Rule(f"{names.get(name, name)}.weight", (f"{name}.weight",), gain)
    if isinstance(op, Attention) and op.sinks:
        name = f"{sublayer.name}.sinks"
        yield Rule(names.get(name, name), (name,))
    if isinstance(op, LinearAttention):
        name, block = sublayer.name, names.get(sublayer.name, sublayer.name)
        for part in ("weight", "bias") if op.bias else ("weight",):
            convs = tuple(f"{name}.{letter}_conv.{part}" for letter in op.streams)
            yield Rule(f"{names.get(f'{name}.conv1d', f'{block}.conv1d')}.{part}", convs, Rows(op.convolved))
        for each in (*op.vectors, *(("norm.weight",) if op.normed else ())):
            yield Rule(names.get(f"{name}.{each}", f"{block}.{each}"), (f"{name}.{each}",))
    if isinstance(op, ShortConv):
        name = f"{sublayer.name}.conv"
        for part in ("weight", "bias") if op.bias else ("weight",):
            yield Rule(f"{names.get(name, name)}.{part}", (f"{name}.{part}",))


def _of_latent(op: Attention, parts: Sequence[str], *, paired: bool) -> Transform:
    """Return what is done to a matrix of latent attention, given the linear layers that it is of.

    Of a query a family has the channels last that positions turn, and ours come first.
    """
    assert op.latent is not None
    plain, turned = op.head_dim - op.turned, op.turned
    match parts:
        case ["q_proj"]:
            return in_pairs(op.head_dim, turned, first=plain) if paired else in_front(op.head_dim, turned)
        case ["kv_a_proj", "k_rope_proj"]:
            pairs = in_pairs(turned, turned) if paired else COPY
            return Parts(Rows((op.latent.rank, turned)), (COPY, pairs))
        case ["k_proj", "v_proj"]:
            return ByHead(op.heads, (plain, op.value_dim))
    return COPY


def _joined(ours: Mapping[str, object], names: Mapping[str, str]) -> dict[str, list[str]]:
    """Return our names of modules by the family's."""
    found: dict[str, list[str]] = {}
    for name in ours:
        number = NUMBER.search(name)
        pattern = names.get(NUMBER.sub("{}", name), name)
        theirs = names.get(name, pattern.format(number.group()) if number else name)
        found.setdefault(theirs, []).append(name)
    return found
