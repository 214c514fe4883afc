"""What the stage verbs' options become: settings of a stage, as a recipe would have them."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

from roots_compress.cli import stages
from roots_compress.cli.app import app


@pytest.mark.parametrize(
    ("command", "settings"),
    [
        ("quantize", {"kind": "quantize"}),
        ("quantize --int4", {"kind": "quantize", "scheme": "int4"}),
        (
            "quantize --int8 --weights-only --group-size 32 --int8-cache",
            {"kind": "quantize", "scheme": "int8", "activations": "never", "group_size": 32, "cache": "int8"},
        ),
        ("prune --head-ratio 0.5 --no-refit", {"kind": "prune", "head_ratio": 0.5, "refit": False}),
        (
            "prune --target-bytes 9000 --per-layer --score obs",
            {"kind": "prune", "target": {"bytes": 9000}, "uniform": False, "score": "obs"},
        ),
        (
            "distill --student tiny --top-k 8 --divergence reverse_kl",
            {
                "kind": "distill",
                "student": "tiny",
                "loss": {"top_k": 8, "divergence": "reverse_kl"},
                "training": {},
            },
        ),
    ],
)
def test_options_become_settings(
    command: str, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Any]] = []
    monkeypatch.setattr(stages, "_append", lambda stage, run, *, source: seen.append(stage))
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    assert seen == [settings]
