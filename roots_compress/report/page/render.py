"""A template filled in: one file that asks for nothing else, whatever stands in its texts."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from roots_compress.errors import printable


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("roots_compress.report", "page"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The policy of the page lets this script run and no other, wherever one might have come in.
    script = _source(environment, "sort.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "script": script,
        "script_sha256": digest,
        "style": _source(environment, "style.css"),
    }
    environment.filters["breaks"] = _breaks
    return environment


def _breaks(name: str) -> Markup:
    """Return a name that may be broken after dots, underscores and plus signs, but not within a number."""
    return Markup(re.sub(r"([_+]|(?<!\d)\.|\.(?!\d))", r"\1<wbr>", str(escape(name))))


def _source(environment: Environment, name: str) -> Markup:
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def render(template: str, **shown: Any) -> str:
    """Return a page; everything but markup that this package made is escaped."""
    return printable(_environment().get_template(template).render(**shown))
