"""How two records differ: in names alone, which a change may have reason for, or in numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Record = dict[str, Any]


def differences(old: Record, new: Record) -> tuple[list[str], list[str]]:
    """Return what differs in numbers, and what differs in names alone, a line each."""
    numbers: list[str] = []
    names: list[str] = []
    for model in sorted(old.keys() | new.keys()):
        before, after = old.get(model), new.get(model)
        if before is None or after is None:
            numbers.append(f"{model}: recorded {'after' if before is None else 'before'} only")
            continue
        for label in sorted(before.keys() | after.keys()):
            place = f"{model}, {label}"
            numbers += [f"{place}: {line}" for line in _numbers(before.get(label, {}), after.get(label, {}))]
            names += [f"{place}: {line}" for line in _names(before.get(label, {}), after.get(label, {}))]
    return numbers, names


def _numbers(before: Record, after: Record) -> Iterator[str]:
    for key in ("exit", "figures", "logits"):
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key)} before, {after.get(key)} after"
    if sorted(before.get("tensors", {}).values()) != sorted(after.get("tensors", {}).values()):
        yield "the checkpoint's tensors differ"
    one, other = before.get("graph", {}), after.get("graph", {})
    for key in ("weights", "operators", "logits"):
        if one.get(key) != other.get(key):
            yield f"the graph's {key} differ"


def _names(before: Record, after: Record) -> Iterator[str]:
    one, other = before.get("tensors", {}), after.get("tensors", {})
    if one != other and sorted(one.values()) == sorted(other.values()):
        yield f"the checkpoint's tensors have other names, {len(one.keys() - other.keys())} of them"
    if before.get("graph", {}).get("files") != after.get("graph", {}).get("files"):
        yield "the graph's bytes differ"
