"""What is asked of the compressed model: how large, how slow and how much worse it may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Any, Final

from roots_compress.errors import InputError
from roots_compress.report.text import megabytes
from roots_compress.tasks.base import Task

OPTION: Final = "--target"
FORMS: Final = '"100 MB", "3x faster" or "at most 5% worse"'
_NUMBER = r"(?P<number>[0-9]{1,12}(\.[0-9]{1,12})?)"
_SIZE = re.compile(rf"{_NUMBER}\s*(?P<unit>[kKMG]i?B|B|bytes)")
_FASTER = re.compile(rf"{_NUMBER}\s*[x×]\s+faster")
_WORSE = re.compile(rf"(at most\s+)?{_NUMBER}\s*%\s+worse")
_PERCENT = re.compile(rf"{_NUMBER}\s*%")
_UNITS = {"b": 1, "bytes": 1, "kb": 1e3, "mb": 1e6, "gb": 1e9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


@dataclass(frozen=True)
class Bounds:
    """Bounds on a compressed model, beside the model that it is made of; None where there is none."""

    max_bytes: int | None = None
    """The most bytes of its graph."""
    min_speedup: float | None = None
    """The least gain in the workload that decides: decoding a token, or reading a text."""
    max_loss: float | None = None
    """By how much the metric that decides may be worse: 0.05 is 5% of a perplexity, and 5 points of a hundred
    of a metric between 0 and 1, such as an accuracy or a cosine."""

    def gates(self, task: Task[Any]) -> dict[str, float]:
        """Return the bounds as gates on the figures of a task."""
        gates: dict[str, float] = {}
        if self.max_bytes is not None:
            gates["max_bytes"] = self.max_bytes
        if self.min_speedup is not None:
            gates[task.workload.speedup_bound] = self.min_speedup
        if self.max_loss is not None:
            metric = task.metric
            worse = self.max_loss if metric.better == "lower" else -self.max_loss
            gates[metric.compared_bound] = (
                round(1 + worse if metric.relative else worse, 9) + 0.0
            )  # never -0.0
        return gates

    def told(self, task: Task[Any]) -> list[str]:
        """Return the bounds in words, one each."""
        said = []
        if self.max_bytes is not None:
            said.append(f"at most {megabytes(self.max_bytes)} MB")
        if self.min_speedup is not None:
            said.append(f"at least {self.min_speedup:g} times as fast ({task.workload.words})")
        if self.max_loss is not None:
            percent = f"{self.max_loss * 100:g}"
            points = "%" if task.metric.relative else f" point{'s' * (percent != '1')} of 100"
            said.append(f"{task.metric.heading} at most {percent}{points} worse")
        return said


def read_targets(texts: Iterable[str]) -> Bounds:
    """Return the bounds that targets set: `100 MB`, `3x faster`, `at most 5% worse`.

    Raises:
        InputError: a target has none of the three forms, or two of them bound one figure.
    """
    given: dict[str, Any] = {}
    for text in texts:
        name, value = _target(text.strip())
        if name in given:
            raise InputError(
                "two targets bound one figure", where=f"{OPTION} {text.strip()!r:.80}", remedy="Give one."
            )
        given[name] = value
    return Bounds(**given)


def read_percent(text: str, option: str) -> float:
    """Return a percentage as a fraction.

    Raises:
        InputError: it is none.
    """
    found = _PERCENT.fullmatch(text.strip())
    if found is None:
        raise InputError(
            f"{text!r:.80} is no percentage", where=option, remedy=f"Write it with its sign: {option} 5%"
        )
    return float(found["number"]) / 100


def bounds_of(
    *,
    max_mb: float | None = None,
    min_speedup: float | None = None,
    max_loss: float | None = None,
    spelled: Callable[[str], str] = str,
) -> Bounds:
    """Return bounds from figures as a caller gives them.

    Args:
        max_mb: megabytes (millions of bytes) of the graph.
        min_speedup: a ratio.
        max_loss: a fraction, 0.05 for 5%.
        spelled: returns what a caller calls one of these.

    Raises:
        InputError: none is given, or one is out of range.
    """
    for name, value in (("max_mb", max_mb), ("min_speedup", min_speedup), ("max_loss", max_loss)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(
                f"is {value!r:.60}, which is no number", where=spelled(name), remedy="Give a number."
            )
    for name, value in (("max_mb", max_mb), ("min_speedup", min_speedup)):
        if value is not None and not 0 < value < 1e12:
            raise InputError(
                f"is {value:g}: no model can be that", where=spelled(name), remedy="Give a number such as 3."
            )
    if max_loss is not None and not 0 <= max_loss < 1e6:
        raise InputError(
            f"is {max_loss:g}: no loss can be that",
            where=spelled("max_loss"),
            remedy="Give a fraction such as 0.05.",
        )
    bounds = Bounds(None if max_mb is None else max(1, round(max_mb * 1e6)), min_speedup, max_loss)
    if all(getattr(bounds, each.name) is None for each in fields(bounds)):
        raise InputError(
            "no bound is given",
            remedy=f"Give one or more of {', '.join(map(spelled, ('max_mb', 'min_speedup', 'max_loss')))}.",
        )
    return bounds


def _target(text: str) -> tuple[str, int | float]:
    """Return the bound that one target sets, and its value."""
    value: int | float = 0
    if found := _SIZE.fullmatch(text):
        name, value = "max_bytes", int(float(found["number"]) * _UNITS[found["unit"].lower()])
    elif found := _FASTER.fullmatch(text):
        name, value = "min_speedup", float(found["number"])
    elif found := _WORSE.fullmatch(text):
        return "max_loss", float(found["number"]) / 100
    else:
        raise InputError(f"{text!r:.80} is no target", where=OPTION, remedy=f"Give one as {FORMS}.")
    if value <= 0:
        raise InputError(f"{text!r:.80} asks for nothing", where=OPTION, remedy="Give a number above 0.")
    return name, value
