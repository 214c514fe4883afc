"""Carrying tensors over between a family's names and ROOTS's own, one at a time, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from torch import Tensor

from roots_compress.errors import InputError
from roots_compress.families.base import Computed, Family, Rule
from roots_compress.models.spec import ModelSpec

LAYER_NUMBER = re.compile(r"\.(\d+)\.")


def to_roots(
    rules: Iterable[Rule],
    names: Collection[str],
    take: Callable[[str], Tensor],
    *,
    prefix: str = "",
    ignored: Collection[str] = (),
    computed: Collection[Computed] = (),
    family: str,
    where: Path,
) -> Iterator[tuple[str, Tensor]]:
    """Yield ROOTS names and tensors, loading one source tensor at a time.

    Args:
        rules: the place of each tensor of the model.
        names: every tensor of the source.
        take: returns the tensor of a name.
        prefix: what may stand before a name, and is left out of the rules.
        ignored: names of tensors that nothing reads, `{}` in the place of a layer's number.
        computed: the tensors that several source tensors make together.
        family: what it is called, and `where` the source, for messages.
        where: the source.

    Raises:
        InputError: a tensor has no place in the model.
    """
    places = {rule.source: rule for rule in rules}
    stored = {name.removeprefix(prefix): name for name in names}
    for each in computed:
        if stored.keys() >= {*each.sources}:
            read = [bare for bare in (*each.sources, *each.optional) if bare in stored]
            yield from zip(each.targets, each.make({bare: take(stored[bare]) for bare in read}), strict=True)
    joined = {bare for each in computed for bare in (*each.sources, *each.optional)}
    for bare, name in sorted(stored.items()):
        if bare in places:
            rule = places[bare]
            yield from zip(rule.targets, rule.transform.apply(take(name)), strict=True)
        elif bare not in joined and LAYER_NUMBER.sub(".{}.", bare, count=1) not in ignored:
            remedy = "The checkpoint holds more than the model that its configuration describes."
            if "lora_" in name or ".base_layer." in name:
                remedy = "It is a part of an adapter: merge it into its base first (peft's merge_and_unload)."
            raise InputError(
                f"tensor {name!r} has no place in this {family} model", where=where, remedy=remedy
            )


def from_roots(family: Family, spec: ModelSpec, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a family's tensors under its own names, leaving out those of rules this model does not use.

    Raises:
        ValueError: the state has a tensor that the family has no name for.
    """
    written: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in family.rules(spec):
        if not all(target in state for target in rule.targets):
            continue
        prefix = "" if rule.source.startswith(family.headed) else family.prefix
        tensors = [state[target] for target in rule.targets]
        written[prefix + rule.source] = rule.transform.invert(tensors)
        used.update(rule.targets)
    for each in family.computed(spec):
        for source, tensor in each.write([state[target] for target in each.targets]).items():
            written[family.prefix + source] = tensor
        used.update(each.targets)
    if left := sorted(state.keys() - used):
        raise ValueError(f"{family.model_type} has no name for {left[0]}")
    return written
