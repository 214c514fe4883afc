"""Lines: values by step of training, or milliseconds by length of context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from roots_compress.report.charts.frame import WIDE, Axis, Frame
from roots_compress.report.charts.labels import spread
from roots_compress.report.charts.svg import FONT, cut, drawing, element, path, text, width_of

MOST_POINTS = 240
"""Of a line: more would not be told apart."""
COLOURS = 8
"""Of series; the page has so many, and begins again after them."""


@dataclass(frozen=True)
class Mark:
    """A value of a line, with the extremes of its repeats where it has some."""

    x: float
    y: float
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Series:
    """One line."""

    label: str
    marks: tuple[Mark, ...]
    colour: int = 0


def thinned(marks: Sequence[Mark]) -> list[Mark]:
    """Return at most `MOST_POINTS` marks: of each part of the line the lowest and the highest, in order."""
    if len(marks) <= MOST_POINTS:
        return list(marks)
    parts = (MOST_POINTS - 2) // 2
    inner = marks[1:-1]
    kept = {0, len(marks) - 1}
    for part in range(parts):
        span = range(part * len(inner) // parts, (part + 1) * len(inner) // parts)
        kept |= {1 + min(span, key=lambda at: inner[at].y), 1 + max(span, key=lambda at: inner[at].y)}
    return [marks[index] for index in sorted(kept)]


def lines(
    name: str,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    width: float,
    height: float = 220.0,
    dots: bool = False,
    named: Sequence[float] = (),
) -> Markup:
    """Return the drawing, with each line's label at its end where there are several.

    Args:
        name: what the chart shows.
        series: its lines.
        x: the axis to the right.
        y: the axis upwards.
        width: of the drawing.
        height: of the drawing.
        dots: whether each value has a dot and a line between its bounds.
        named: values that the x axis names; else round ones.
    """
    most = 22 if width >= WIDE else 16
    labels = [cut(each.label, most) for each in series] if len(series) > 1 else []
    frame = Frame.around(
        [mark.x for each in series for mark in each.marks],
        [value for each in series for mark in each.marks for value in (mark.y, *(mark.bounds or ()))],
        x,
        y,
        width=width,
        height=height,
        right=max(map(width_of, labels), default=0.0) + 16,
        named=named,
    )
    parts = [frame.markup()]
    parts += [_line(frame, each, dots=dots) for each in series]
    if labels:
        ends = [frame.y.at(each.marks[-1].y) + 4 for each in series]
        places = spread(ends, FONT + 2, frame.y.end, frame.y.start)
        parts += [
            text(frame.x.end + 10, at, said, class_=f"label t{each.colour % COLOURS}", title=each.label)
            for each, said, at in zip(series, labels, places, strict=True)
        ]
    return drawing(width, height, name, *parts)


def _line(frame: Frame, series: Series, *, dots: bool) -> Markup:
    colour = f"c{series.colour % COLOURS}"
    marks = thinned(series.marks)
    parts = []
    if dots:
        parts += [
            element(
                "line",
                x1=frame.x.at(mark.x),
                x2=frame.x.at(mark.x),
                y1=frame.y.at(mark.bounds[0]),
                y2=frame.y.at(mark.bounds[1]),
                class_=f"spread {colour}",
            )
            for mark in marks
            if mark.bounds
        ]
    parts.append(path([(frame.x.at(mark.x), frame.y.at(mark.y)) for mark in marks], class_=f"line {colour}"))
    if dots or len(marks) == 1:
        parts += [
            element(
                "circle",
                element("title", f"{series.label}: {mark.y:.4g}"),
                cx=frame.x.at(mark.x),
                cy=frame.y.at(mark.y),
                r=3.5,
                class_=f"dot {colour}",
            )
            for mark in marks
        ]
    return Markup("").join(parts)
