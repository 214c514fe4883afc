"""Values of a configuration, as JSON has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def shown(value: Any) -> str:
    """Return a value as JSON has it, shortened."""
    return "null" if value is None else f"{value!r:.100}"


def is_positive(value: Any) -> bool:
    """Whether a value is a number above 0."""
    return not isinstance(value, bool) and isinstance(value, int | float) and value > 0


def is_among(value: Any, values: Sequence[Any]) -> bool:
    """Whether a value is one of several, true and false being no numbers."""
    return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in values)


def older_activation_name(ours: str) -> str:
    """Return the name of an activation that transformers' older families write."""
    return "gelu_new" if ours == "gelu_tanh" else ours
