"""Carrying tensors over between a family's names and ROOTS's own, one at a time, in both directions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from roots_compress.errors import InputError
from roots_compress.families.families import Family, Rule, Transform

LAYER_NUMBER = re.compile(r"\.(\d+)\.")


class Naming(Protocol):
    """A family's names for tensors: of a directory or of GGUF files."""

    @property
    def model_type(self) -> str:
        """What the family is called."""

    @property
    def prefix(self) -> str:
        """What may stand before a name, and is left out of the rules."""

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The place of each tensor."""

    @property
    def ignored(self) -> tuple[str, ...]:
        """Tensors that nothing reads."""


def apply(transform: Transform, tensor: Tensor, parts: int) -> Sequence[Tensor]:
    """Return the ROOTS tensors that a source tensor becomes, `parts` of them."""
    match transform:
        case "copy":
            return (tensor,)
        case "transpose":
            return (tensor.T.contiguous(),)
        case "split":
            return [part.contiguous() for part in tensor.chunk(parts)]
        case "transpose_split":
            return [part.contiguous() for part in tensor.T.chunk(parts)]
        case "add_one":
            return (tensor.float() + 1,)


def invert(transform: Transform, tensors: Sequence[Tensor]) -> Tensor:
    """Return the source tensor that these ROOTS tensors came from: the inverse of `apply`."""
    match transform:
        case "copy":
            return tensors[0]
        case "transpose":
            return tensors[0].T.contiguous()
        case "split":
            return torch.cat(list(tensors))
        case "transpose_split":
            return torch.cat(list(tensors)).T.contiguous()
        case "add_one":
            return tensors[0] - 1


def to_roots(
    family: Naming, names: Collection[str], take: Callable[[str], Tensor], where: Path
) -> Iterator[tuple[str, Tensor]]:
    """Yield ROOTS names and tensors, loading one source tensor at a time.

    Args:
        family: whose names these are.
        names: every tensor of the source.
        take: returns the tensor of a name.
        where: the source, for messages.

    Raises:
        InputError: a tensor has no place in the family's table.
    """
    rules = {rule.source: rule for rule in family.rules}
    for name in sorted(names):
        pattern, number = _pattern(name.removeprefix(family.prefix))
        if pattern in family.ignored:
            continue
        if pattern not in rules:
            remedy = "The checkpoint holds more than the language model, or its model_type is wrong."
            if "lora_" in name or ".base_layer." in name:
                remedy = "It is a part of an adapter: merge it into its base first (peft's merge_and_unload)."
            raise InputError(
                f"tensor {name!r} has no place in a {family.model_type} model", where=where, remedy=remedy
            )
        rule = rules[pattern]
        yield from zip(
            _numbered(rule, number), apply(rule.transform, take(name), len(rule.targets)), strict=True
        )


def from_roots(family: Family, state: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Return a family's tensors under its own names, leaving out those of rules this model does not use.

    Raises:
        ValueError: the state has a tensor that the family has no name for.
    """
    written: dict[str, Tensor] = {}
    used: set[str] = set()
    for rule in family.rules:
        for number in range(layers) if "{}" in rule.source else (None,):
            targets = _numbered(rule, number)
            if not all(target in state for target in targets):
                continue
            name = rule.source if number is None else rule.source.format(number)
            prefix = "" if name.startswith("lm_head.") else family.prefix
            written[prefix + name] = invert(rule.transform, [state[target] for target in targets])
            used.update(targets)
    if left := sorted(state.keys() - used):
        raise ValueError(f"{family.model_type} has no name for {left[0]}")
    return written


def _pattern(name: str) -> tuple[str, int | None]:
    """Return a name with its layer's number replaced by `{}`, and the number."""
    found = LAYER_NUMBER.search(name)
    if found is None:
        return name, None
    return f"{name[: found.start()]}.{{}}.{name[found.end() :]}", int(found[1])


def _numbered(rule: Rule, number: int | None) -> tuple[str, ...]:
    return rule.targets if number is None else tuple(target.format(number) for target in rule.targets)
