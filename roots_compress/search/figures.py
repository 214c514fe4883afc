"""What a search has measured so far, kept in `search.json` for the search that goes on from there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from roots_compress.evaluate.config import EvaluationConfig
from roots_compress.results import Json
from roots_compress.run.atomic import read_regular
from roots_compress.search.choice import Point
from roots_compress.search.space import Candidate
from roots_compress.search.succession import Outcome
from roots_compress.steps import TIMING_SETTINGS

NAME: Final = "search.json"
SCHEMA = 1
_MAX_BYTES = 16 << 20


@dataclass(frozen=True)
class Figures:
    """One candidate's figures, and the run's baseline's, timed in turns with it."""

    bytes: int
    perplexity_ratio: float
    decode_ms: float
    baseline_bytes: int
    baseline_decode_ms: float
    seconds: float
    """What its last stage took, with export and measurement."""


def outcomes_of(figures: Mapping[Candidate, Figures]) -> dict[Candidate, Outcome]:
    """Return the candidates' outcomes, their times made comparable.

    A machine is not equally fast all the time. Each candidate was timed in turns with the baseline, so what
    is known of it is the ratio of the two; its milliseconds are that ratio times the median of all the
    baseline's.
    """
    usual_ms = baseline_of(figures).decode_ms
    return {
        candidate: Outcome(
            Point(each.bytes, usual_ms * each.decode_ms / each.baseline_decode_ms, each.perplexity_ratio),
            each.seconds,
        )
        for candidate, each in figures.items()
    }


def baseline_of(figures: Mapping[Candidate, Figures]) -> Point:
    """Return the figures of the run's baseline; at least one candidate must have been tried."""
    first = next(iter(figures.values()))
    return Point(first.baseline_bytes, median(each.baseline_decode_ms for each in figures.values()), 1.0)


def read_figures(run: Path, evaluation: EvaluationConfig) -> dict[str, Figures]:
    """Return what earlier tries measured in a run, by the sha256 of the stage key of each candidate's end.

    What was timed otherwise, or cannot be read, is left out: its candidates are measured again.
    """
    try:
        document = json.loads(read_regular(run / NAME, _MAX_BYTES))
        if document["schema"] != SCHEMA or document["timing"] != _timing(evaluation):
            return {}
        tried = {key: Figures(**each) for key, each in document["tried"].items()}
        return {key: each for key, each in tried.items() if _is_measured(each)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def figures_text(figures: Mapping[str, Figures], evaluation: EvaluationConfig) -> str:
    """Return what `read_figures` reads."""
    tried = {key: asdict(each) for key, each in figures.items()}
    document = {"schema": SCHEMA, "timing": _timing(evaluation), "tried": tried}
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _is_measured(figures: Figures) -> bool:
    """Return whether these can be figures: an edited file may hold anything, and a ratio divides by them."""
    return all(
        type(value) in (int, float) and math.isfinite(value) and value > 0
        for value in asdict(figures).values()
    )


def _timing(evaluation: EvaluationConfig) -> dict[str, Json]:
    return evaluation.model_dump(mode="json", include=TIMING_SETTINGS)
