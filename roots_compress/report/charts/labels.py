"""Places for labels so that they do not lie on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return places near the wanted ones, in their order, at least `gap` apart and within bounds.

    Where the bounds leave too little room, the gap shrinks.
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    gap = min(gap, (high - low) / max(1, len(wanted) - 1))
    places = [0.0] * len(wanted)
    free = low
    for index in order:
        places[index] = max(free, wanted[index])
        free = places[index] + gap
    limit = high
    for index in reversed(order):
        places[index] = min(places[index], limit)
        limit = places[index] - gap
    return places


@dataclass(frozen=True)
class Box:
    """A rectangle of a drawing."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)

    def outside(self, other: Box) -> float:
        """Return the area that the other does not cover."""
        return (self.right - self.left) * (self.bottom - self.top) - self.overlap(other)

    def gap(self, x: float, y: float) -> float:
        """Return how far a point is from it; 0 within."""
        return math.hypot(max(self.left - x, 0.0, x - self.right), max(self.top - y, 0.0, y - self.bottom))


def place(
    x: float,
    y: float,
    width: float,
    height: float,
    taken: Sequence[Box],
    bounds: Box,
    others: Sequence[tuple[float, float]] = (),
) -> Box:
    """Return a label's box beside a point: the free place among eleven, or the one that covers least.

    A place next to another point would name that one, so it is taken last.

    Args:
        x: the point.
        y: likewise.
        width: of the label.
        height: likewise.
        taken: what must stay visible.
        bounds: what the label must stay within.
        others: points that have labels of their own.
    """
    away = 9.0
    middle = y - height / 2
    corners = (
        *((x + away, middle), (x - away - width, middle), (x - width / 2, y - away - height)),
        *((x - width / 2, y + away), (x + away, y - away - height), (x + away, y + away)),
        *((x - away - width, y - away - height), (x - away - width, y + away)),
        *((x + away, y - 2 * away - height), (x + away, y + 2 * away), (x - away - width, y + 2 * away)),
    )
    boxes = [Box(left, top, left + width, top + height) for left, top in corners]

    def cost(box: Box) -> float:
        mistaken = sum(box.gap(*other) <= box.gap(x, y) for other in others)
        return 10 * box.outside(bounds) + sum(map(box.overlap, taken)) + mistaken * width * height

    return min(boxes, key=cost)
