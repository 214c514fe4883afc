"""What `search.json` keeps is read back as it was, and an edited file is measured again, not believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from roots_compress.evaluate.config import EvaluationConfig
from roots_compress.search.figures import NAME, Figures, figures_text, read_figures

FIGURES = {"a": Figures(100, 1.5, 2.0, 200, 3.0, 4.0), "b": Figures(50, 0.9, 1.0, 200, 3.5, 1.0)}
EVALUATION = EvaluationConfig()


def test_figures_are_read_back(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(figures_text(FIGURES, EVALUATION), encoding="utf-8")
    assert read_figures(tmp_path, EVALUATION) == FIGURES


def test_figures_timed_otherwise_are_left_out(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(figures_text(FIGURES, EVALUATION), encoding="utf-8")
    assert read_figures(tmp_path, EvaluationConfig(repeats=EVALUATION.repeats + 1)) == {}


@pytest.mark.parametrize("value", ["2.0", 0, -1.0, None, True, [1]])
def test_what_cannot_be_a_figure_is_measured_again(tmp_path: Path, value: object) -> None:
    document = json.loads(figures_text(FIGURES, EVALUATION))
    document["tried"]["a"]["decode_ms"] = value
    (tmp_path / NAME).write_text(json.dumps(document), encoding="utf-8")
    assert read_figures(tmp_path, EVALUATION) == {"b": FIGURES["b"]}
