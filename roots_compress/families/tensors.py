"""Converts tensors between a family's names and ROOTS's own, one at a time, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from roots_compress.errors import InputError
from roots_compress.families.base import Computed, Family, Rule, bare_name
from roots_compress.families.text_encoder import SCORE, tensor_rules
from roots_compress.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

NUMBER = re.compile(r"\.\d+(?=\.)")
IN_LAYER = re.compile(r"^model\.layers\.\d+\.")
GUESSES = "eh_proj.weight"
"""First matrix of multi-token prediction layers after the last layer (DeepSeek-V3, arXiv:2412.19437)."""
OF_GUESSES = ("mtp.", "mtp_")
"""Beginnings of the names of such layers elsewhere."""
OF_ADAPTERS = ("lora_", ".base_layer.", ".modules_to_save.", ".original_module.")
"""Parts of the names of peft's additional or replacing tensors."""
TAKE_CONFIG = "Take the configuration that belongs to these weights, or save the model by its own class."


def to_roots(
    rules: Iterable[Rule],
    names: Collection[str],
    take: Callable[[str], Tensor],
    *,
    prefix: str = "",
    ignored: Collection[str] = (),
    apart: tuple[str, ...] = (),
    computed: Collection[Computed] = (),
    copies: Mapping[str, str] = MappingProxyType({}),
    family: str,
    where: Path,
) -> Iterator[tuple[str, Tensor]]:
    """Yield ROOTS names and tensors, loading one source tensor at a time.

    Args:
        prefix: an optional prefix of names, complete or only its last parts, which the rules leave out.
        ignored: names of unused tensors, with `{}` for each number.
        apart: beginnings of the names of tensors in left-out parts.
        copies: other names under which a tensor may be stored.
        family: its name, and `where` the source, for messages.

    Raises:
        InputError: a tensor has no place in the model, or a copy differs from its original.
    """
    places = {rule.source: rule for rule in rules}
    bare = {name: bare_name(name, prefix) for name in names}
    stored = {bare[name]: name for name in names}
    for each in computed:
        if lacking := [part for part in each.sources if part not in stored]:
            raise InputError(
                f"tensor {lacking[0]!r} is absent, and the configuration asks for it",
                where=where,
                remedy=TAKE_CONFIG,
            )
        yield from zip(
            each.targets, each.make({part: take(stored[part]) for part in each.sources}), strict=True
        )
    joined = {part for each in computed for part in each.sources}
    left_out = (*apart, *_guessing(stored, places))
    read: dict[str, str] = {}  # The tensor that was taken for each place.
    for name in sorted(names, key=lambda each: (bare[each] not in places, each)):
        place = bare[name] if bare[name] in places else copies.get(bare[name], "")
        if place in read:
            if not take(name).equal(take(read[place])):
                raise InputError(
                    f"tensor {name!r} is not the copy of {read[place]!r} that a {family} model has there",
                    where=where,
                    remedy="Save the model again by its own class, with one of them.",
                )
        elif place in places:
            read[place] = name
            rule = places[place]
            yield from zip(rule.targets, rule.transform.apply(take(name)), strict=True)
        elif bare[name].startswith(left_out):
            continue
        elif bare[name] not in joined and NUMBER.sub(".{}", bare[name]) not in ignored:
            raise InputError(
                f"tensor {name!r} has no place in this {family} model",
                where=where,
                remedy=_advice(name, prefix, places),
            )


def _guessing(names: Iterable[str], places: Collection[str]) -> tuple[str, ...]:
    """Return the beginnings of the names of multi-token prediction tensors, which have no place."""
    layers = {name.removesuffix(GUESSES) for name in names if name.endswith(GUESSES)}
    behind = (layer for layer in layers if not any(place.startswith(layer) for place in places))
    return (*OF_GUESSES, *behind)


def multiplied(
    tensors: Iterable[tuple[str, Tensor]], factors: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors by their ROOTS names, with the factors multiplied into those of linear layers.

    Args:
        factors: those on weight and bias, by the linear layers' names within a transformer layer.
    """
    for name, tensor in tensors:
        layer, _, part = IN_LAYER.sub("", name).rpartition(".")
        of_weight, of_bias = factors.get(layer, (1.0, 1.0))
        factor = of_weight if part == "weight" else of_bias
        yield name, tensor if factor == 1 else tensor.float() * factor


def _advice(name: str, prefix: str, places: Collection[str]) -> str:
    """Return advice for a tensor without a place."""
    if any(part in name for part in OF_ADAPTERS):
        return "It is of an adapter: save that alone, or merge it into its base (peft's merge_and_unload)."
    rest = name
    while rest := rest.partition(".")[2]:
        if bare_name(rest, prefix) in places:
            wrapper = name.removesuffix(rest)
            return f"Without {wrapper!r} its name has one: save the model itself, not what wraps it."
    return TAKE_CONFIG


def from_roots(family: Family, spec: ModelSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a family's tensors under its own names, leaving out those of rules this model does not use.

    Raises:
        ValueError: the state has a tensor for which the family has no name.
    """
    written: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in tensor_rules(family, spec):
        if not all(target in state for target in rule.targets) or used.issuperset(rule.targets):
            continue  # Of several places of a tensor the first is written.
        bare = rule == SCORE or rule.source.startswith(family.headed)
        prefix = "" if bare else family.prefix
        tensors = [state[target] for target in rule.targets]
        written[prefix + rule.source] = rule.transform.invert(tensors)
        used.update(rule.targets)
    for each in family.computed(spec, {}):
        for source, tensor in each.write([state[target] for target in each.targets]).items():
            written[family.prefix + source] = tensor
        used.update(each.targets)
    if left := sorted(state.keys() - used):
        raise ValueError(f"{family.model_type} has no name for {left[0]}")
    return written
