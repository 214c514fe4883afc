"""Points on a plane: the cost of each stage and candidate against its gain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from roots_compress.report.charts.frame import BOTTOM, TOP, Axis, Frame
from roots_compress.report.charts.labels import Box, place
from roots_compress.report.charts.lines import COLOURS
from roots_compress.report.charts.svg import FONT, cut, drawing, element, path, text, width_of

LABEL = 22
"""Most characters of a label."""
Bounds = tuple[float, float]
Role = Literal["stage", "candidate", "control"]


@dataclass(frozen=True)
class Spot:
    """One model: its two figures with the bounds that hold them, where they are known."""

    label: str
    """Empty where it is not named."""
    x: float
    y: float
    x_bounds: Bounds | None = None
    y_bounds: Bounds | None = None
    role: Role = "stage"
    colour: int = 1
    """Of the run that it belongs to: stages of one colour are joined in their order."""
    told: str = ""
    """Text shown under a pointer."""


def front(spots: Sequence[Spot], *, lower_is_better: bool) -> list[bool]:
    """Return for each spot whether no other is at least as good in both figures and better in one.

    A smaller `x` is better.
    """
    sign = 1 if lower_is_better else -1

    def dominates(one: Spot, other: Spot) -> bool:
        return (
            one.x <= other.x
            and sign * one.y <= sign * other.y
            and (one.x < other.x or sign * one.y < sign * other.y)
        )

    return [not any(dominates(other, spot) for other in spots) for spot in spots]


def plane(
    name: str, spots: Sequence[Spot], x: Axis, y: Axis, *, lower_is_better: bool, width: float
) -> Markup:
    """Return the drawing; stages are joined in their order, and full where they are on the front."""
    height = 320.0
    frame = Frame.around(
        _extent((spot.x, spot.x_bounds) for spot in spots),
        _extent((spot.y, spot.y_bounds) for spot in spots),
        x,
        y,
        width=width,
        height=height,
        right=20,
    )
    best = dict(zip(spots, front(spots, lower_is_better=lower_is_better), strict=True))
    at = {spot: (frame.x.at(spot.x), frame.y.at(spot.y)) for spot in spots}
    stages = [spot for spot in spots if spot.role == "stage"]
    colours = dict.fromkeys(spot.colour for spot in stages)
    # Stages last, so that no candidate hides one.
    ordered = sorted(spots, key=lambda spot: spot.role == "stage")
    return drawing(
        width,
        height,
        name,
        frame.markup(),
        *(path([at[spot] for spot in stages if spot.colour == each], class_="chain") for each in colours),
        *(_bounds(frame, spot) for spot in ordered),
        *(_mark(spot, *at[spot], on_front=best[spot]) for spot in ordered),
        *_labels(stages, at, frame),
    )


def _extent(values: Iterable[tuple[float, Bounds | None]]) -> list[float]:
    return [each for value, bounds in values for each in (value, *(bounds or ()))]


def _bounds(frame: Frame, spot: Spot) -> Markup:
    """Return the lines that hold a spot's figures."""
    x, y = frame.x.at(spot.x), frame.y.at(spot.y)
    lines = []
    if spot.x_bounds:
        low, high = map(frame.x.at, spot.x_bounds)
        lines.append(element("line", x1=low, x2=high, y1=y, y2=y, class_="bounds"))
    if spot.y_bounds:
        low, high = map(frame.y.at, spot.y_bounds)
        lines.append(element("line", x1=x, x2=x, y1=low, y2=high, class_="bounds"))
    return Markup("").join(lines)


def _mark(spot: Spot, x: float, y: float, *, on_front: bool) -> Markup:
    title = element("title", spot.told or spot.label)
    class_ = f"{spot.role} {'front' if on_front else 'behind'} c{spot.colour % COLOURS}"
    if spot.role == "control":
        return element("rect", title, x=x - 3.5, y=y - 3.5, width=7, height=7, class_=class_)
    return element("circle", title, cx=x, cy=y, r=6 if spot.role == "stage" else 4, class_=class_)


def _lines_of(frame: Frame, spot: Spot) -> Iterator[Box]:
    """Yield the places of a spot's bounds."""
    x, y = frame.x.at(spot.x), frame.y.at(spot.y)
    if spot.x_bounds:
        low, high = sorted(map(frame.x.at, spot.x_bounds))
        yield Box(low, y - 1, high, y + 1)
    if spot.y_bounds:
        low, high = sorted(map(frame.y.at, spot.y_bounds))
        yield Box(x - 1, low, x + 1, high)


def _labels(stages: Sequence[Spot], at: dict[Spot, tuple[float, float]], frame: Frame) -> list[Markup]:
    taken = [Box(x - 7, y - 7, x + 7, y + 7) for x, y in at.values()]
    taken += [box for spot in stages for box in _lines_of(frame, spot)]
    bounds = Box(frame.x.start, TOP - 14, frame.width, frame.height - BOTTOM)
    labels = []
    # The last stage chooses first: it is the one that is decided on.
    for spot in reversed([spot for spot in stages if spot.label]):
        said = cut(spot.label, LABEL)
        others = [at[other] for other in stages if other is not spot]
        box = place(*at[spot], width_of(said), FONT + 2, taken, bounds, others)
        taken.append(box)
        labels.append(
            text(box.left, box.bottom - 3, said, class_=f"label t{spot.colour % COLOURS}", title=spot.label)
        )
    return labels
