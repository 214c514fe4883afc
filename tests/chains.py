"""Whole runs, tiny but real: the settings of every stage, and how a recipe of them is carried out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roots_compress.configs.recipe.loading import parse_recipe
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.events import Events
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.runner import run_recipe
from roots_compress.results import RunMetrics

TRAINING = {"steps": 6, "batch_size": 2, "block_size": 32, "checkpoint_every": 2}
CALIBRATION = {"windows": 12, "block_size": 32}
ARCHITECTURE = {
    "hidden_size": 32,
    "num_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
TRAIN = {
    "kind": "train",
    "architecture": ARCHITECTURE,
    "tokenizer": {"vocab_size": 300},
    "training": TRAINING,
}
DISTILL = {"kind": "distill", "student": "small", "training": TRAINING}
PRUNE = {"kind": "prune", "ratio": 0.25, "own_windows": 2, "multiple_of": 8, "calibration": CALIBRATION}
QUANTIZE = {
    "kind": "quantize",
    "scheme": "int8",
    "products": "integer",
    "own_windows": 2,
    "calibration": CALIBRATION,
}
"""Of one form: two runs are compared bit by bit, and timings of so small a model may choose either."""
EVALUATION = {
    "windows": 4,
    "block_size": 32,
    "contexts": [16],
    "repeats": 1,
    "decode_tokens": 2,
    "threads": 1,
}


def recipe(text: Path, *stages: dict[str, Any], **changes: Any) -> Recipe:
    return parse_recipe(
        {
            "name": "tiny",
            "data": {"train": [str(text)], "eval_fraction": 0.25},
            "evaluation": EVALUATION,
            "stages": list(stages),
            **changes,
        }
    )


def carry_out(recipe: Recipe, folder: Path, events: Events | None = None) -> RunMetrics:
    return run_recipe(prepare(recipe, folder), folder, events=events or Events())


def write_text(folder: Path) -> None:
    """Write a text of one's own, so that the tests need not gather the built-in corpus."""
    folder.mkdir(exist_ok=True)
    sentences = [f"Sentence {i} says that {i} times {i % 7} is {i * (i % 7)}, no more." for i in range(600)]
    for part in range(4):
        lines = sentences[part * 150 : (part + 1) * 150]
        (folder / f"part{part}.txt").write_text("\n".join(lines), encoding="utf-8")
