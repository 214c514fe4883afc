"""Rotary positions of a config.json, in each of the spellings that transformers has had for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log, sqrt
from typing import Any

from roots_compress.families.switches import Switches
from roots_compress.families.values import is_positive, shown
from roots_compress.models.ops.attention import Attention, LongRopeScaling, Rope
from roots_compress.models.ops.base import changed
from roots_compress.models.version1 import plain_rope

NEEDED = {"linear": ("factor",), "llama3": ("factor", "low_freq_factor", "high_freq_factor")}
"""What a scaling must say as a number above 0."""
ORIGINAL = "original_max_position_embeddings"
PARTIAL = "partial_rotary_factor"
DEFAULT_THETA = 10000.0
OLD_TABLES = (
    "rotary_emb.inv_freq",
    *(f"layers.{{}}.{block}.rotary_emb.inv_freq" for block in ("self_attn", "attention")),
)
"""Frequencies that old checkpoints of any family carry, and that are made of the configuration."""
FULL, SLIDING = "full_attention", "sliding_attention"
"""transformers' names of what layers attend to."""
BOTH = "rope_scaling and rope_parameters are both given, and say different things of the same positions"


def rope_of(switches: Switches, parameters: dict[str, Any], *, head_dim: int = 0) -> Rope:
    """Return the rotary positions that `read_rope` found.

    Args:
        head_dim: of the heads, which may be turned in part.
    """
    plain = dict(parameters)
    partial = plain.pop(PARTIAL, 1)
    try:
        rope = plain_rope(plain)
    except ValueError as error:
        switches.refuse(str(error))
    return rope if partial == 1 else changed(rope, rotary_dim=int(head_dim * partial))


def read_rope(
    switches: Switches, *, partial: float | None = None, theta: float = DEFAULT_THETA
) -> dict[str, Any]:
    """Take rotary positions: `rope_scaling` or `rope_parameters`, and what either leaves to the top.

    At the top are `rope_theta` and `partial_rotary_factor`, which apply where the object has none, and
    `original_max_position_embeddings`, which goes before the object's.

    Args:
        partial: the share of a head that the family turns by default; None where that is all of it.

    Raises:
        InputError: two spellings differ, or ROOTS cannot express what they say.
    """
    top = {"rope_theta": switches.take("rope_theta", theta)}
    share = switches.take(PARTIAL, partial)
    if share is not None:
        top[PARTIAL] = share
    original = {ORIGINAL: switches.take(ORIGINAL)} if switches.has(ORIGINAL) else {}
    read = []
    for key in ("rope_scaling", "rope_parameters"):
        given = switches.take(key)
        if given is not None and not isinstance(given, dict):
            switches.refuse(f"{key} is {shown(given)}; it must be an object or null")
        if given:
            read.append(_completed(switches, key, given, top, original, partial))
    if len(read) == 2 and read[0] != read[1]:
        switches.refuse(BOTH)
    return read[0] if read else _completed(switches, "", {}, top, {}, partial)


def longrope(
    switches: Switches, parameters: dict[str, Any], *, pairs: int, original: int, max_positions: int
) -> LongRopeScaling:
    """Take what `parameters` say of LongRoPE.

    Args:
        parameters: an object of rotary positions; what is taken leaves it.
        pairs: of channels that are turned.
        original: the length from which on the long factors hold.
    """
    factors = []
    for key in ("short_factor", "long_factor"):
        given = parameters.pop(key, None)
        if not isinstance(given, list) or not all(map(is_positive, given)):
            switches.refuse(f"{key} is {shown(given)}; it must be a list of numbers above 0")
        factors.append(tuple(float(number) for number in given))
    if any(len(each) != pairs for each in factors):
        switches.refuse(f"short_factor and long_factor must hold {pairs} numbers, one for each turned pair")
    factor = parameters.pop("factor", None) or max_positions / original
    attention = parameters.pop("attention_factor", None)
    if attention is None:
        attention = sqrt(1 + log(factor) / log(original)) if factor > 1 else 1.0
    return LongRopeScaling(
        short_factor=factors[0],
        long_factor=factors[1],
        original_max_position_embeddings=original,
        attention_factor=attention,
    )


def ropes_by_type(
    switches: Switches, max_positions: int, kinds: Mapping[str, tuple[str | None, float]]
) -> dict[str, Rope]:
    """Take the rotary positions of a family whose full and sliding layers have different ones.

    `rope_parameters` holds an object for each; before transformers 5, `rope_scaling` was full attention's.

    Args:
        kinds: for each kind of layer the key at the top that may hold its base, if there is one, and the base
            where nothing does.

    Raises:
        InputError: ROOTS cannot express what they say.
    """
    given, scaling = switches.take("rope_parameters"), switches.take("rope_scaling")
    for key, value in (("rope_parameters", given), ("rope_scaling", scaling)):
        if value is not None and not isinstance(value, dict):
            switches.refuse(f"{key} is {shown(value)}; it must be an object or null")
    given = given or {}
    if others := sorted(given.keys() - kinds.keys()):
        switches.refuse(f"rope_parameters has the key {others[0]!r}; its keys are {FULL} and {SLIDING}")
    ropes = {}
    for kind, (top, theta) in kinds.items():
        parameters = {**(given.get(kind) or {}), **((scaling or {}) if kind == FULL else {})}
        named = parameters.pop("type", None)
        rope_type = parameters.setdefault("rope_type", "default" if named is None else named)
        if named not in (None, rope_type):
            switches.refuse(f"rope_scaling has type {shown(named)} and rope_type {shown(rope_type)}")
        parameters.setdefault("rope_theta", theta if top is None else switches.positive(top, theta))
        if top is not None:
            switches.take(top)
        if rope_type in ("llama3", "yarn"):
            parameters.setdefault(ORIGINAL, max_positions)
        try:
            ropes[kind] = plain_rope(parameters)
        except ValueError as error:
            switches.refuse(f"{kind}: {error}")
    return ropes


def written_rope(attention: Attention) -> dict[str, Any]:
    """Return `rope_parameters` of an attention's positions, as `read_rope` reads them."""
    rope = attention.rope or Rope()
    partial = {} if rope.rotary_dim is None else {PARTIAL: rope.rotary_dim / attention.head_dim}
    return rope.parameters() | partial


def written_ropes(
    attentions: Sequence[Attention], kinds: Mapping[str, tuple[str | None, float]]
) -> dict[str, Any]:
    """Return `rope_parameters` of a family as `ropes_by_type` reads it; `kinds` is as there."""
    ropes = {FULL if each.window is None else SLIDING: each.rope for each in attentions}
    return {kind: (ropes.get(kind) or Rope(theta=theta)).parameters() for kind, (_, theta) in kinds.items()}


def _completed(
    switches: Switches,
    key: str,
    given: dict[str, Any],
    top: dict[str, Any],
    original: dict[str, Any],
    default: float | None,
) -> dict[str, Any]:
    """Return the parameters of one spelling, with what it leaves to the top."""

    def named(name: str) -> str:
        return f"{key}.{name}" if name in given else name

    parameters = {**top, **given}
    rope_type = given.get("rope_type", given.get("type", "default"))
    for name in ("rope_type", "type"):
        parameters.pop(name, None)
    partial = parameters.pop(PARTIAL, 1) if default is None else parameters.get(PARTIAL, 1)
    if default is not None:
        if not is_positive(partial) or partial > 1:
            switches.refuse(f"{named(PARTIAL)} is {shown(partial)}; it must be above 0 and at most 1")
    elif partial != 1 and not (partial is None and rope_type == "default"):
        switches.refuse(f"{named(PARTIAL)} is {shown(partial)}; partly rotated heads are not supported")
    if rope_type in ("llama3", "yarn") and original:
        value = original[ORIGINAL]
        if value is None or parameters.get(ORIGINAL, value) != value:
            switches.refuse(
                f"{ORIGINAL} is {shown(value)}, and {key}.{ORIGINAL} {shown(given.get(ORIGINAL))}"
            )
        parameters[ORIGINAL] = value
    for name in ("rope_theta", *NEEDED.get(str(rope_type), ())):
        if not is_positive(parameters.get(name)):
            switches.refuse(f"{named(name)} is {shown(parameters.get(name))}; it must be a number above 0")
    if ORIGINAL in parameters and not is_positive(parameters[ORIGINAL]):
        switches.refuse(f"{named(ORIGINAL)} is {shown(parameters[ORIGINAL])}; it must be a number above 0")
    return {"rope_type": rope_type, **parameters}
