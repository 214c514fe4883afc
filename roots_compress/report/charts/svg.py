"""Elements of SVG as markup; every text and attribute is escaped."""

from __future__ import annotations

from markupsafe import Markup, escape

FONT = 12
"""Size of all text, in units of a drawing, which is shown at about one pixel a unit."""
CHARACTER = 7.6
"""Width of a character of that size, so that wide fonts in bold find room too."""


def element(name: str, *children: str, **attributes: str | float) -> Markup:
    """Return an element; `text_anchor` becomes `text-anchor`, and `class_` is `class`."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_value(value))}"' for key, value in attributes.items()
    )
    inside = Markup("").join(children)
    return Markup(f"<{name}{told}>{inside}</{name}>") if inside else Markup(f"<{name}{told}/>")


def drawing(width: float, height: float, name: str, *children: str) -> Markup:
    """Return a whole drawing with the name that screen readers tell."""
    inside = Markup("").join(children)
    size = f'viewBox="0 0 {width:g} {height:g}" style="max-width:{width * 1.15:g}px"'
    return Markup(f'<svg {size} role="img" aria-label="{escape(name)}">{inside}</svg>')


def text(
    x: float, y: float, said: str, *, anchor: str = "start", class_: str = "", title: str = ""
) -> Markup:
    """Return text whose baseline is at `y`; `title` shows where the text is pointed at."""
    children = (said, element("title", title)) if title else (said,)
    named = {"class_": class_} if class_ else {}
    return element("text", *children, x=x, y=y, text_anchor=anchor, **named)


def path(points: list[tuple[float, float]], **attributes: str | float) -> Markup:
    """Return a line through points."""
    steps = " ".join(f"{'L' if index else 'M'}{x:.1f} {y:.1f}" for index, (x, y) in enumerate(points))
    return element("path", d=steps, fill="none", **attributes)


def cut(said: str, most: int) -> str:
    """Return a text of at most so many characters, its end replaced by an ellipsis."""
    return said if len(said) <= most else said[: max(1, most - 1)] + "…"


def width_of(said: str) -> float:
    """Return about how wide a text is."""
    return len(said) * CHARACTER


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.1f}".removesuffix(".0")
