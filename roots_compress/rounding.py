"""Figures of any size as people read them: in few digits, but in enough to tell two apart."""

from __future__ import annotations

FEWEST, MOST = 4, 17
"""Digits of a figure. Two floats that differ do so in `MOST` digits."""


def figure(value: float, digits: int = FEWEST) -> str:
    """Return a figure in so many digits; from ten thousand on with all before the point: `1,234,567`."""
    if round(abs(value)) >= 1e4 and abs(value) < 1e15:
        return f"{value:,.{digits - FEWEST}f}"
    return f"{value:.{digits}g}"


def bounded(
    limit: float, value: float | None, interval: tuple[float, float] | None = None
) -> tuple[str, str]:
    """Return a limit, and a value with its interval, in the fewest digits that tell each from the limit.

    A value of 1.20004 misses a limit of 1.2, which four digits would not show.
    """
    found = () if value is None else (value, *(interval or ()))

    def are_told(digits: int) -> bool:
        return all(each == limit or figure(each, digits) != figure(limit, digits) for each in found)

    digits = next(filter(are_told, range(FEWEST, MOST)), MOST)
    first, *ends = [figure(each, digits) for each in found] or [""]
    return figure(limit, digits), f"{first} ({' to '.join(ends)})" if ends else first
