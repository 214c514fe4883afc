"""What a report says of the choice between integer products and weights only, from a stage's notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FORMS = {"integer": "integer products", "float": "weights only"}


def choice_caption(notes: Mapping[str, Any]) -> str | None:
    """Return a sentence on what was chosen, for what, and what the other would have given.

    None where nothing was chosen by timing, or the notes do not hold what they should.
    """
    choice = notes.get("choice")
    try:
        return _line(choice) if isinstance(choice, dict) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None  # A file may hold anything; the notes themselves are shown as they are.


def _line(choice: dict[str, Any]) -> str:
    chosen, work = choice["products"], choice["workload"]
    other = "float" if chosen == "integer" else "integer"
    written = f" and {work['write']:,} written" if work["write"] else ""
    said = f"{FORMS[chosen]} chosen for {choice['processor']} with {work['read']:,} tokens read{written}"
    if "milliseconds" not in choice:
        return f"{said}: {choice['source']}"
    took, would = choice["milliseconds"][chosen], choice["milliseconds"][other]
    said += f". This takes {took:,.0f} ms and {_size(choice['bytes'][chosen])}; {FORMS[other]} would take "
    said += f"{would:,.0f} ms and {_size(choice['bytes'][other])} ({choice['source']})"
    return said + _loss(choice)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e6:.3f} MB"


def _loss(choice: dict[str, Any]) -> str:
    expected, allowed = choice["expected_loss"], choice["allowed_loss"]
    if expected is None:
        return "" if allowed is None else f"; integer products may cost {allowed:.3g} nats a prediction"
    of = "" if allowed is None else f" of {allowed:.3g} allowed"
    return f"; integer products are expected to cost {expected:.3g} nats a prediction{of}"
