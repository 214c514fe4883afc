"""A report's sentences on the choices by timing (products and cache), from a stage's notes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

FORMS = {"integer": "integer products", "float": "weights only"}
LEAST_LOSS = 0.0001
"""Smaller losses, in nats a prediction, are shown as equal."""


def choice_caption(notes: Mapping[str, Any]) -> str | None:
    """Return sentences on the choices, their workload, and the alternative.

    None if nothing was chosen by timing, or the notes are malformed.
    """
    said = (_said(notes.get("choice"), _line), _said(notes.get("cache_choice"), _cache_line))
    return ". ".join(filter(None, said)) or None


def _said(choice: Any, line: Callable[[dict[str, Any]], str]) -> str | None:
    try:
        return line(choice) if isinstance(choice, dict) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # A file may hold anything; the raw notes are shown in any case.


def _cache_line(choice: dict[str, Any]) -> str:
    chosen, took, work = choice["cache"], choice["milliseconds"], choice["workload"]
    other, added = "float" if chosen == "int8" else "int8", choice["added_loss"]
    said = f"Keys and values are cached as {chosen}, chosen for {work['read']:,} tokens read and "
    said += f"{work['write']:,} written. This takes {_time(took[chosen])}; {other} would take "
    said += f"{_time(took[other])} ({choice['source']})"
    if added is None:
        return said
    return f"{said}; int8 adds {added:.2g} nats a token to the loss, of {choice['allowed_loss']:.2g} allowed"


def _line(choice: dict[str, Any]) -> str:
    chosen, work = choice["products"], choice["workload"]
    other = "float" if chosen == "integer" else "integer"
    written = f" and {work['write']:,} written" if work["write"] else ""
    said = f"{FORMS[chosen]} chosen for {choice['processor']} with {work['read']:,} tokens read{written}"
    if "milliseconds" not in choice:
        return f"{said}: {choice['source']}"
    took, would = choice["milliseconds"][chosen], choice["milliseconds"][other]
    said += f". This takes {_time(took)} and {_size(choice['bytes'][chosen])}; {FORMS[other]} would take "
    said += f"{_time(would)} and {_size(choice['bytes'][other])} ({choice['source']})"
    return said + _loss(choice)


def _time(milliseconds: float) -> str:
    if milliseconds >= 100:
        return f"{milliseconds:,.0f} ms"
    return f"{milliseconds:.1f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e6:.3f} MB"


def _loss(choice: dict[str, Any]) -> str:
    expected, allowed = choice["expected_loss"], choice["allowed_loss"]
    if expected is None:
        return "" if allowed is None else f"; integer products may cost {allowed:.3g} nats a prediction"
    of = "" if allowed is None else f" ({allowed:.3g} allowed)"
    cost = f"{expected:.3g}" if expected >= LEAST_LOSS else f"less than {LEAST_LOSS}"
    return f"; integer products are expected to cost {cost} nats a prediction{of}"
