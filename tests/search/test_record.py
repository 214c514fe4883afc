"""What `search.json` keeps is read back as it was, and what was edited there is tried again, not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.search.figures import Figures
from roots_compress.search.record import NAME, Record

RECORD = Record(
    {"a": Figures(100, 1.5, 2.0, 200, 3.0, 9.0, 4.0), "b": Figures(50, 0.9, 1.0, 200, 3.5, 9.0, 1.0)},
    {"c": "no legal width", "d": "NaN"},
)
EVALUATION = EvaluationConfig()


def test_a_record_is_read_back(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(RECORD.text(EVALUATION), encoding="utf-8")
    assert Record.read(tmp_path, EVALUATION) == RECORD


def test_a_record_of_other_timings_is_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(RECORD.text(EVALUATION), encoding="utf-8")
    assert Record.read(tmp_path, EvaluationConfig(repeats=EVALUATION.repeats + 1)) == Record()


@pytest.mark.parametrize("value", ["2.0", 0, -1.0, None, True, [1], 10**400, 1e400])
def test_what_cannot_be_a_figure_is_measured_again(tmp_path: Path, value: object) -> None:
    document = json.loads(RECORD.text(EVALUATION))
    document["tried"]["a"]["milliseconds"] = value
    (tmp_path / NAME).write_text(json.dumps(document), encoding="utf-8")
    assert Record.read(tmp_path, EVALUATION) == Record({"b": RECORD.tried["b"]}, RECORD.failed)


@pytest.mark.parametrize("value", [0, None, ["why"]])
def test_what_cannot_be_a_reason_is_tried_again(tmp_path: Path, value: object) -> None:
    document = json.loads(RECORD.text(EVALUATION))
    document["failed"]["c"] = value
    (tmp_path / NAME).write_text(json.dumps(document), encoding="utf-8")
    assert Record.read(tmp_path, EVALUATION) == Record(RECORD.tried, {"d": "NaN"})
