"""What a stage would refuse by the model's shape and the text is refused before anything is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from roots_compress.checkpoints.checkpoint import save_checkpoint
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.recipe.walk import training_of
from roots_compress.errors import InputError, RootsError
from roots_compress.pipeline.preflight import prepare
from tests.tiny import TEXT, tiny_checkpoint, tiny_layer

CACHED = {"kind": "quantize", "cache": "int8"}
FUSIBLE, OTHER = [tiny_layer(head_dim=16)], [tiny_layer(head_dim=8)]
"""Layers whose attention ONNX Runtime's operator can express, and others."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tiny_checkpoint(layers=FUSIBLE), tmp_path / "fusible")
    save_checkpoint(tiny_checkpoint(layers=OTHER), tmp_path / "other")
    (tmp_path / "text.txt").write_text("\n\n".join(f"{part} {TEXT}" * 8 for part in range(20)))
    return tmp_path


def prepared(folder: Path, **keys: Any) -> Recipe:
    fields = {"data": {"train": [str(folder / "text.txt")]}, "evaluation": {"block_size": 32}, **keys}
    recipe = Recipe.model_validate({"name": "t", **fields}).from_folder(folder)
    return prepare(recipe, folder / "run").recipe


def distilled(folder: Path, student: str) -> dict[str, Any]:
    return {"kind": "distill", "student": str(folder / student), "training": {"block_size": 32}}


def test_a_model_is_asked_as_it_is_before_the_stage(folder: Path) -> None:
    model = str(folder / "other")
    for stages in ([CACHED], [{"kind": "prune"}, CACHED]):
        with pytest.raises(InputError, match="cannot be cached in int8") as refused:
            prepared(folder, model=model, stages=stages)
        assert refused.value.where == f"stages[{len(stages) - 1}].cache"
    prepared(folder, model=model, stages=[distilled(folder, "fusible"), CACHED])
    prepared(folder, model=str(folder / "fusible"), stages=[{"kind": "prune"}, CACHED])
    with pytest.raises(InputError, match="cannot be cached in int8"):
        prepared(folder, model=str(folder / "fusible"), stages=[distilled(folder, "other"), CACHED])


def test_windows_fit_into_the_shortest_context_unless_their_length_is_given(folder: Path) -> None:
    save_checkpoint(tiny_checkpoint(layers=FUSIBLE, max_position_embeddings=64), folder / "short")
    model = str(folder / "fusible")  # Of 128 tokens; windows have 512 by default.
    for stages, fitted in (([], 128), ([distilled(folder, "short")], 64)):
        assert prepared(folder, model=model, stages=stages, evaluation={}).evaluation.block_size == fitted
        with pytest.raises(InputError, match="is 129 tokens, but the model's context"):
            prepared(folder, model=model, stages=stages, evaluation={"block_size": 129})
    short = {"kind": "distill", "student": str(folder / "short")}  # Trains on windows of 256 by default.
    for stages, index in (([{"kind": "train"}], 0), ([{"kind": "prune"}, short], 1)):
        stage = prepared(folder, model=model, stages=stages).stages[index]
        assert [training.block_size for _, training in training_of(stage)] == [64 if index else 128]


def test_a_model_from_scratch_of_a_short_context_needs_no_lengths(folder: Path) -> None:
    train = {"kind": "train", "architecture": {"max_position_embeddings": 64, "hidden_size": 32}}
    recipe = prepared(folder, stages=[train, {"kind": "prune"}], evaluation={})
    assert recipe.evaluation.block_size == 64
    assert [training.block_size for _, training in training_of(recipe.stages[0])] == [64]


def test_a_model_from_scratch_is_known_from_the_recipe(folder: Path) -> None:
    train = {"kind": "train", "training": {"block_size": 32}}
    prepared(folder, stages=[train, CACHED])
    with pytest.raises(InputError, match="cannot be cached in int8"):
        prepared(folder, stages=[{**train, "architecture": {"head_dim": 24}}, CACHED])


def test_a_choice_of_a_search_is_asked_of_the_model_before_it(folder: Path) -> None:
    search = {"max_minutes": 1.0, "choices": [CACHED]}
    with pytest.raises(InputError, match="cannot be cached in int8") as refused:
        prepared(folder, model=str(folder / "other"), gates={"max_bytes": 1000}, search=search)
    assert refused.value.where == "search.choices[0].cache"


SHORT = {"calibration": {"windows": 1, "block_size": 16}, "own_windows": 0}


@pytest.mark.parametrize(
    ("stage", "key", "words", "code"),
    [
        ({"kind": "prune", "target": {"parameters": 0.0001}}, "target", "leaves no legal shape", 2),
        ({"kind": "prune", "target": {"bytes": 100}}, "target", "leaves no legal shape", 2),
        ({"kind": "prune", **SHORT}, "calibration", "1 calibration windows of 16 tokens are too few", 2),
        ({"kind": "quantize", **SHORT}, "calibration", "16 tokens of calibration text are too few", 2),
        ({"kind": "quantize", "scheme": "int4", "max_bytes": 100}, "max_bytes", "at most 100 are asked", 3),
    ],
)
def test_the_first_stage_is_asked_by_shape_alone(
    folder: Path, stage: dict[str, Any], key: str, words: str, code: int
) -> None:
    with pytest.raises(RootsError, match=words) as refused:
        prepared(folder, model=str(folder / "other"), stages=[stage])
    assert (refused.value.where, refused.value.exit_code) == (f"stages[0].{key}", code)
    assert not (folder / "run").exists()
