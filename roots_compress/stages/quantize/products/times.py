"""The times of two forms of a model: found once, by timing or from stored measurements, and then kept.

Timings vary. A stage that is restarted after an interruption, or made again because its files were damaged,
uses its earlier times, and so makes the same choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.events import Events
from roots_compress.io.atomic import read_regular, write_text
from roots_compress.models.config import RootsConfig
from roots_compress.results import Json
from roots_compress.run.keys import checked_content, with_sha256
from roots_compress.stages.quantize.products.choice import FormTimes
from roots_compress.stages.quantize.products.measured import measured_times
from roots_compress.stages.quantize.products.timing import layer_weights, time_caches, time_here
from roots_compress.system.machine import own_instruction_set, processor_class

NAME, CACHE_NAME = "times.json", "cache-times.json"
_MAX_BYTES = 1 << 20


def served_on(config: QuantizeConfig) -> str:
    """Return the class of the processor that will run the model."""
    return processor_class(own_instruction_set()) if config.serve_on == "auto" else config.serve_on


def form_times(
    config: QuantizeConfig,
    model: RootsConfig,
    work: Path,
    chosen: Mapping[str, Json] | None,
    *,
    portable: bool,
    events: Events,
) -> FormTimes | None:
    """Return the times for the choice; None if the processor was not measured.

    `work` keeps them for a restart, and holds graphs while they are timed; `chosen` holds the stage's earlier
    choice.

    Raises:
        StageError: a model cannot be exported, or the measuring process failed.
    """
    processor = served_on(config)
    if processor != processor_class(own_instruction_set()):
        return measured_times(
            processor,
            layer_weights=sum(layer_weights(model)),
            table_weights=model.spec.table_weights,
        )
    return _found_once(
        work / NAME,
        (chosen or {}).get("times"),
        lambda: time_here(model, config, work / "timing", portable=portable, events=events),
    )


def cache_times(
    config: QuantizeConfig,
    model: RootsConfig,
    work: Path,
    chosen: Mapping[str, Json] | None,
    *,
    events: Events,
) -> FormTimes:
    """Return a model's times on this machine with an int8 cache and with a float cache.

    `work` and `chosen` are as in `form_times`.

    Raises:
        StageError: a model cannot be exported, or the measuring process failed.
    """
    before = (chosen or {}).get("cache_choice")
    return _found_once(
        work / CACHE_NAME,
        before.get("times") if isinstance(before, dict) else None,
        lambda: time_caches(model, config, work / "timing", events=events),
    )


def _found_once(kept: Path, earlier: Any, time: Callable[[], FormTimes]) -> FormTimes:
    """Return the times left by an interrupted attempt at the stage, or used by the stage before."""
    found = _read(lambda: checked_content(read_regular(kept, _MAX_BYTES))) or _read(lambda: earlier)
    if found is None:
        found = time()
    # Written to disk before use: a stage that goes on after a kill must use the same times.
    write_text(kept, json.dumps(with_sha256(found.to_json())))
    return found


def _read(content: Callable[[], Any]) -> FormTimes | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        return FormTimes.from_json(content())
    return None
