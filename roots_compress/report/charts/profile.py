"""A bar for each weight or block in the model's order: the errors of a stage along the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

from roots_compress.report.charts.frame import Axis, Frame
from roots_compress.report.charts.svg import drawing, element
from roots_compress.results import LayerError

MOST_BARS = 300
"""More would be thinner than a pixel: of several in a row the largest error is shown."""


def profile(name: str, errors: Sequence[LayerError], *, width: float) -> Markup:
    """Return the drawing, with weights at a higher precision in a colour of their own."""
    height = 240.0
    together = math.ceil(len(errors) / MOST_BARS)
    errors = [
        max(errors[at : at + together], key=lambda each: each.error) for at in range(0, len(errors), together)
    ]
    frame = Frame.around(
        [0.5, len(errors) + 0.5],
        [max(0.0, error.error) for error in errors],
        Axis("in the model's order" + (f", largest of each {together}" if together > 1 else "")),
        Axis("relative squared error", from_zero=True),
        width=width,
        height=height,
    )
    step = (frame.x.end - frame.x.start) / (len(errors) + 1)
    bars = []
    for index, error in enumerate(errors, 1):
        top = frame.y.at(max(0.0, error.error))
        bars.append(
            element(
                "rect",
                element("title", f"{error.name}: {error.error:.3g}"),
                x=frame.x.start + (index - 0.5) * step,
                y=top,
                width=max(0.5, step * 0.75),
                height=frame.y.start - top,
                class_="bar higher" if error.higher_precision else "bar",
            )
        )
    return drawing(width, height, name, frame.markup(), *bars)
