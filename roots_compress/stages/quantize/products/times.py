"""What both forms of int8 take: found once, by timing or by figures measured elsewhere, and then kept.

Timings differ from one time to the next. A stage that is begun anew after an interruption, or made again
because its files were damaged, goes by the times that it went by before, and so makes the same choice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.events import Events
from roots_compress.io.atomic import read_regular, write_text
from roots_compress.models.config import RootsConfig
from roots_compress.results import Json
from roots_compress.run.keys import checked_content, with_sha256
from roots_compress.stages.quantize.products.choice import FormTimes
from roots_compress.stages.quantize.products.measured import measured_times
from roots_compress.stages.quantize.products.timing import layer_weights, time_here
from roots_compress.system.machine import own_instruction_set, processor_class

NAME = "times.json"
_MAX_BYTES = 1 << 20


def served_on(config: QuantizeConfig) -> str:
    """Return the class of the processor that is to serve the model."""
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
    """Return the times to choose by; None where the processor was not measured.

    `work` keeps them for an attempt begun anew, and holds graphs while they are timed; `chosen` is what the
    same stage chose when it was made before.

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
    found = _kept(work / NAME) or _earlier(chosen)
    if found is None:
        found = time_here(model, config, work / "timing", portable=portable, events=events)
    # On the disk before anything is made of it: what is gone on from after a kill was made by these times.
    write_text(work / NAME, json.dumps(with_sha256(found.to_json())))
    return found


def _kept(path: Path) -> FormTimes | None:
    """Return what an attempt at the stage left that did not come to its end."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        return FormTimes.from_json(checked_content(read_regular(path, _MAX_BYTES)))
    return None


def _earlier(chosen: Mapping[str, Json] | None) -> FormTimes | None:
    with suppress(ValueError, TypeError, KeyError):
        return FormTimes.from_json((chosen or {})["times"])
    return None
