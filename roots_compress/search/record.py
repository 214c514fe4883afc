"""What a search has tried so far, kept in `search.json` for the search that goes on from there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Self

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.io.atomic import read_regular
from roots_compress.pipeline.steps import TIMING_SETTINGS
from roots_compress.results import LARGEST, Json
from roots_compress.search.figures import Figures

NAME: Final = "search.json"
SCHEMA = 3
_MAX_BYTES = 16 << 20


@dataclass
class Record:
    """What came of the candidates tried, by the sha256 of the stage key of each one's end.

    A key covers all that a stage depends on, so what failed under it would fail again.
    """

    tried: dict[str, Figures] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    """Why those that could not be made could not."""

    @classmethod
    def read(cls, run: Path, evaluation: EvaluationConfig) -> Self:
        """Return what earlier tries left in a run's folder.

        What was timed otherwise, or cannot be read, is left out: its candidates are tried again.
        """
        try:
            document = json.loads(read_regular(run / NAME, _MAX_BYTES))
            if document["schema"] != SCHEMA or document["timing"] != _timing(evaluation):
                return cls()
            tried = {key: Figures(**each) for key, each in document["tried"].items()}
            failed = {key: why for key, why in document["failed"].items() if isinstance(why, str)}
            return cls({key: each for key, each in tried.items() if _is_measured(each)}, failed)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return cls()

    def text(self, evaluation: EvaluationConfig) -> str:
        """Return what `read` reads."""
        document = {"schema": SCHEMA, "timing": _timing(evaluation), **asdict(self)}
        return json.dumps(document, indent=2, allow_nan=False) + "\n"


def _is_measured(figures: Figures) -> bool:
    """Return whether these can be figures: an edited file may hold anything, and a ratio divides by them."""
    return all(
        type(value) in (int, float) and abs(value) < LARGEST and (value > 0 or name == "baseline_quality")
        for name, value in asdict(figures).items()
    )


def _timing(evaluation: EvaluationConfig) -> dict[str, Json]:
    return evaluation.model_dump(mode="json", include=TIMING_SETTINGS)
