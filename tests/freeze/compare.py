"""How two records differ: in names alone, which a change may have reason for, or in numbers.

Tensors are matched by contents and not by names: one that is found under another name was renamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
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
    for key in ("exit", "logits"):
        if before.get(key) != after.get(key):
            yield f"{key}: {before.get(key)} before, {after.get(key)} after"
    one, other = before.get("figures", {}), after.get("figures", {})
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key) and not (key == "bytes" and _same_weights(before, after)):
            yield f"{key}: {one.get(key)} before, {other.get(key)} after"
    if lost := _missing(before.get("tensors", {}).values(), after.get("tensors", {}).values()):
        yield f"{lost} of the checkpoint's tensors differ"
    one, other = before.get("graph", {}), after.get("graph", {})
    if lost := _missing(one.get("weights", []), other.get("weights", [])):
        yield f"{lost} of the graph's weights differ"
    for key in ("operators", "logits"):
        if one.get(key) != other.get(key):
            yield f"the graph's {key} differ: {one.get(key)} before, {other.get(key)} after"


def _names(before: Record, after: Record) -> Iterator[str]:
    if renamed := list(_renamed(before.get("tensors", {}), after.get("tensors", {}))):
        yield f"{len(renamed)} of the checkpoint's tensors are renamed: {', '.join(renamed[:3])}"
    one, other = before.get("graph", {}), after.get("graph", {})
    if one.get("files") != other.get("files") and _same_weights(before, after):
        bytes_of = [record.get("figures", {}).get("bytes") for record in (before, after)]
        sizes = f": {bytes_of[0]} bytes before, {bytes_of[1]} after" if bytes_of[0] != bytes_of[1] else ""
        yield f"the graph's files differ, its weights do not{sizes}"


def _renamed(before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Yield `old -> new` for each tensor that is found under another name."""
    places: dict[str, list[str]] = {}
    for name, content in after.items():
        if before.get(name) != content:
            places.setdefault(content, []).append(name)
    for name, content in before.items():
        if after.get(name) != content and places.get(content):
            yield f"{name} -> {places[content].pop(0)}"


def _same_weights(before: Record, after: Record) -> bool:
    weights = [record.get("graph", {}).get("weights", []) for record in (before, after)]
    return not _missing(*weights)


def _missing(before: Iterable[str], after: Iterable[str]) -> int:
    """Return how many contents only one of the two has, or has more often."""
    one, other = Counter(before), Counter(after)
    return max((one - other).total(), (other - one).total())
