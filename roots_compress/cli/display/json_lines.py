"""Events as JSON: an object a line."""

from __future__ import annotations

import json
import math
import re
import time
from datetime import UTC, datetime
from typing import Any, TextIO

from roots_compress.events import Event, WorkAdvanced

SECONDS = 1.0
"""Least seconds between two events on the progress of some work."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class JsonLines:
    """A sink that writes every event as a line of JSON, in ASCII, and flushes it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written: dict[str, float] = {}

    def __call__(self, event: Event) -> None:
        """Write an event, with the time."""
        if isinstance(event, WorkAdvanced) and event.done < event.total:
            now = time.monotonic()
            if now - self._written.get(event.work, -math.inf) < SECONDS:
                return
            self._written[event.work] = now
        self._stream.write(json.dumps(document(event), allow_nan=False) + "\n")
        self._stream.flush()


def document(event: Event) -> dict[str, Any]:
    """Return an event in its written form."""
    fields = event.to_json()
    when = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    written = {key: fields.pop(key) for key in ("schema", "event")}
    return {**written, "time": when, **_as_json(fields)}


def _as_json(value: Any) -> Any:
    """Return a value of JSON in its place: null for a number that is not finite, no halves of characters."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {_as_json(str(key)): _as_json(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(each) for each in value]
    return value
