"""The part of a chart around its figures: grid lines, ticks and names of the axes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from roots_compress.report.charts.scale import Scale, names
from roots_compress.report.charts.svg import element, text, width_of

WIDE, NARROW = 520, 340
"""Widths that each chart is drawn at: the page shows the one that fits, so that text keeps its size."""
TOP, BOTTOM = 26, 46


@dataclass(frozen=True)
class Axis:
    """What an axis shows."""

    name: str
    logarithmic: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class Frame:
    """Axes of a drawing, with the room that their labels take."""

    width: float
    height: float
    x: Scale
    y: Scale
    x_axis: Axis
    y_axis: Axis
    named: tuple[float, ...] = ()
    """The values that the x axis names; else round ones."""

    @classmethod
    def around(
        cls,
        xs: Sequence[float],
        ys: Sequence[float],
        x_axis: Axis,
        y_axis: Axis,
        *,
        width: float,
        height: float,
        right: float = 14,
        named: Sequence[float] = (),
    ) -> Frame:
        """Return a frame that holds all values; `right` stays free for labels of lines."""
        y = Scale.over(ys, height - BOTTOM, TOP, logarithmic=y_axis.logarithmic, from_zero=y_axis.from_zero)
        left = 14 + max(map(width_of, names(y.ticks())), default=0.0)
        x = Scale.over(xs, left, width - right, logarithmic=x_axis.logarithmic, from_zero=x_axis.from_zero)
        return cls(width, height, x, y, x_axis, y_axis, tuple(named))

    def markup(self) -> Markup:
        """Return grid, ticks and names."""
        return Markup("").join(self._parts())

    def _parts(self) -> Iterator[Markup]:
        left, right, bottom = self.x.start, self.x.end, self.y.start
        for tick, said in zip(self.y.ticks(), names(self.y.ticks()), strict=True):
            at = self.y.at(tick)
            yield element("line", x1=left, x2=right, y1=at, y2=at, class_="grid")
            yield text(left - 8, at + 4, said, anchor="end")
        yield element("line", x1=left, x2=right, y1=bottom, y2=bottom, class_="axis")
        shown = float("-inf")
        ticks = list(self.named or self.x.ticks(4 if self.width < WIDE else 6))
        for tick, said in zip(ticks, names(ticks), strict=True):
            at, half = self.x.at(tick), width_of(said) / 2
            yield element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4, class_="axis")
            if at - half > shown + 6:
                yield text(at, bottom + 17, said, anchor="middle")
                shown = at + half
        yield text(0, 11, self.y_axis.name, class_="name")
        yield text(right, self.height - 6, self.x_axis.name, anchor="end", class_="name")
