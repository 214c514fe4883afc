"""The plan for a model: the size of blocks, the layers, and the candidate numbers of blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil, log2

from roots_compress.configs.sparsify import SparsifyConfig
from roots_compress.errors import InputError, Key, Text
from roots_compress.models.ops.attention import Attention, LongRopeScaling, YarnScaling
from roots_compress.models.spec import ModelSpec, Place
from roots_compress.tasks.registry import task_of_spec


@dataclass(frozen=True)
class Plan:
    """Which attentions may become sparse, and how."""

    size: int
    """Keys in a block."""
    places: tuple[Place, ...]
    """Places of the attentions over the whole context."""
    max_positions: int
    """Longest context of the new model."""

    def blocks_of(self, tokens: int) -> int:
        """Return the number of blocks of a text."""
        return ceil(tokens / self.size)


def make_plan(config: SparsifyConfig, spec: ModelSpec) -> Plan:
    """Return the plan for a model.

    Raises:
        InputError: the model does not decode, its attention cannot be block-sparse, or a number does not suit
            it.
    """
    if spec.source is not None or not task_of_spec(spec).writes:
        what = "is an encoder" if spec.source is None else "is an encoder-decoder"
        raise InputError(
            f"the model {what}: block attention is for causal language models",
            remedy="Name a checkpoint of a causal language model.",
        )
    places = tuple(_places(spec))
    if not places:
        raise InputError(
            "every layer has a sliding window, which is shorter than the context already",
            remedy="Leave the stage out.",
        )
    positions = _positions(config, spec)
    size = config.size or 1 << round(log2(positions**0.5))
    if 2 * size > positions:
        raise InputError(
            f"is {size}, and a context of {positions} tokens does not hold two such blocks",
            where=Key("size"),
            remedy=f"Lower it to {positions // 2} or less; about {round(positions**0.5)} is usual.",
        )
    plan = Plan(size, places, positions)
    for key in ("blocks", "fewest"):
        wanted, there = getattr(config, key), plan.blocks_of(positions)
        if wanted is not None and wanted > there:
            raise InputError(
                f"is {wanted}, and a context of {positions} tokens has {there} blocks of {size} keys",
                where=Key(key),
                remedy=Text(f"Lower it to {there} or less, or lower ", Key("size"), "."),
            )
    return plan


def _places(spec: ModelSpec) -> Iterator[Place]:
    """Yield the places of attention over the whole context.

    Raises:
        InputError: it is of a kind that block attention cannot replace.
    """
    for place, op in spec.blocks():
        if not isinstance(op, Attention):
            continue
        where = f"layer {place.layer}'s attention"
        if op.sparse is not None:
            raise InputError(
                f"{where} is sparse already ({op.sparse.kind})",
                remedy="Give the checkpoint from before it became sparse.",
            )
        if op.window is not None:
            continue
        if op.softcap is not None:
            raise InputError(
                f"{where} bounds its scores (softcap {op.softcap:g}), which block attention does not",
                remedy="Leave the stage out for this model.",
            )
        if op.sinks:
            raise InputError(
                f"{where} has a learned sink in each head's softmax, which block attention has not",
                remedy="Leave the stage out for this model.",
            )
        yield place


def _positions(config: SparsifyConfig, spec: ModelSpec) -> int:
    """Return the longest context of the new model.

    Raises:
        InputError: the model's positions do not allow it.
    """
    wanted, held = config.max_positions, spec.max_positions
    if wanted is None or wanted == held:
        return held
    if wanted < held:
        raise InputError(
            f"is {wanted}, and the model has {held} positions already: a context is not shortened",
            where=Key("max_positions"),
            remedy="Leave it out.",
        )
    if spec.embeddings.positions is not None:
        raise InputError(
            f"is {wanted}, and the model has learned {spec.embeddings.positions} positions",
            where=Key("max_positions"),
            remedy="Leave it out: only rotary positions go on.",
        )
    for op in spec.attentions():
        scaling = None if op.rope is None else op.rope.scaling
        if isinstance(scaling, LongRopeScaling) or (isinstance(scaling, YarnScaling) and not scaling.factor):
            raise InputError(
                f"is {wanted}, and the model's rotary positions ({scaling.kind}) are scaled for {held}",
                where=Key("max_positions"),
                remedy="Leave it out.",
            )
    return wanted
