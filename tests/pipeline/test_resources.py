"""Estimates of disk and memory, and that a run which could not come about is refused before it starts."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from roots_compress.configs.distill import DistillConfig
from roots_compress.configs.prune import PruneConfig, RecoveryConfig, TargetConfig
from roots_compress.configs.quantize import QuantizeConfig
from roots_compress.configs.recipe.schema import Recipe
from roots_compress.configs.train import TrainConfig
from roots_compress.errors import InputError
from roots_compress.io.disk import free_disk
from roots_compress.pipeline import stage_runner
from roots_compress.pipeline.resources import Needs, needs_of, require_room
from roots_compress.results import RunMetrics
from roots_compress.run.run_folder import RunFolder
from roots_compress.stages.train.protocol import TrainStage
from tests.chains import DISTILL, TRAIN, carry_out, recipe

MILLION = 1_000_000


def test_an_imported_model_takes_checkpoint_and_graph() -> None:
    assert needs_of([None], MILLION, device="cpu") == Needs(disk=8 * MILLION, memory=8 * MILLION)


def test_training_takes_moments_gradients_and_three_states() -> None:
    needs = needs_of([TrainConfig()], MILLION, device="cpu")
    assert needs == Needs(disk=(8 + 3 * 12) * MILLION, memory=(4 + 16) * MILLION)
    assert needs_of([TrainConfig()], MILLION, device="cuda").memory == 8 * MILLION


def test_a_chain_keeps_every_stage_and_the_largest_training() -> None:
    stages = [None, DistillConfig(student="small"), PruneConfig(ratio=0.5), QuantizeConfig(scheme="int8")]
    needs = needs_of(stages, MILLION, device="cpu")
    assert needs.disk == (8 + 4 + 2 + 0.5) * MILLION + 3 * 12 * MILLION / 2
    assert needs.memory == (4 + 8) * MILLION


def test_a_recovery_by_updates_of_low_rank_takes_no_more_than_the_cut() -> None:
    needs = [
        needs_of([PruneConfig(recovery=recovery)], MILLION, device="cpu")
        for recovery in (None, RecoveryConfig(rank=8), RecoveryConfig())
    ]
    assert needs[0] == needs[1]
    assert needs[2].memory > needs[1].memory


@pytest.mark.parametrize("target", [TargetConfig(parameters=0.75), TargetConfig(bytes=3 * MILLION)])
def test_a_pruning_target_says_what_is_left(target: TargetConfig) -> None:
    assert needs_of([PruneConfig(target=target)], MILLION, device="cpu").disk == 2 * 4 * 0.75 * MILLION


def test_a_narrower_residual_stream_leaves_less() -> None:
    stage = PruneConfig(ratio=0.5, residual_ratio=0.5)
    assert needs_of([stage], MILLION, device="cpu").disk == 2 * 4 * 0.25 * MILLION


@pytest.mark.parametrize(("scheme", "width"), [("int8", 1), ("int4", 0.5), ("fp16", 2)])
def test_a_quantized_model_is_narrow(scheme: Any, width: float) -> None:
    assert needs_of([QuantizeConfig(scheme=scheme)], MILLION, device="cpu").disk == 2 * width * MILLION


def test_a_student_from_a_file_may_be_of_any_size() -> None:
    assert needs_of([DistillConfig(student="mine")], MILLION, device="cpu") == Needs(0, 4 * MILLION)


def test_what_is_just_enough_is_not_refused(tmp_path: Path) -> None:
    needs = Needs(disk=2_000_000_000, memory=3_000_000_000)
    require_room(needs, disk=needs.disk, memory=needs.memory, where=tmp_path)
    require_room(needs, disk=needs.disk, memory=None, where=tmp_path)
    with pytest.raises(InputError, match=r"too little disk: .* at least 2\.00 GB, and 1\.50 GB are free"):
        require_room(needs, disk=1_500_000_000, memory=None, where=tmp_path)
    with pytest.raises(InputError, match=r"too little memory: .* at least 3\.00 GB, and 2\.90 GB are avail"):
        require_room(needs, disk=needs.disk, memory=2_900_000_000, where=tmp_path)


def test_the_disk_of_a_folder_that_is_to_be_is_its_parents(tmp_path: Path) -> None:
    assert free_disk(tmp_path / "a" / "b") == pytest.approx(free_disk(tmp_path), rel=0.1)


def test_what_an_unfinished_stage_takes_counts_as_free(tmp_path: Path) -> None:
    with RunFolder.open(tmp_path) as run:
        assert run.reclaimable_bytes() == 0
        (tmp_path / ".00-train.partial" / "work").mkdir(parents=True)
        (tmp_path / ".00-train.partial" / "work" / "state").write_bytes(b"12345")
        assert run.reclaimable_bytes() == 5


def test_planned_parameters_are_those_of_the_model(chain: tuple[Recipe, Path, RunMetrics]) -> None:
    wanted, _, metrics = chain
    assert isinstance(wanted.stages[0], TrainConfig)
    spec = TrainStage().begun(wanted.stages[0]).spec
    assert spec.parameters == metrics.stages[0].metrics.parameters


@pytest.mark.parametrize("lacking", ["disk", "memory"])
def test_a_run_without_room_is_refused_and_leaves_nothing(
    lacking: str, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, short = {"disk": ("free_disk", lambda _: 1000), "memory": ("available_memory", lambda: 1000)}[
        lacking
    ]
    monkeypatch.setattr(stage_runner, name, short)
    with pytest.raises(InputError, match=f"too little {lacking}"):
        carry_out(recipe(text_file, TRAIN), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_later_stage_without_room_leaves_the_earlier_ones(
    chain: tuple[Recipe, Path, RunMetrics],
    text_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(chain[1], folder)
    monkeypatch.setattr(stage_runner, "free_disk", lambda _: 1000)
    changed = recipe(text_file, TRAIN, {**DISTILL, "student": "tiny"})
    with pytest.raises(InputError, match="too little disk"):
        carry_out(changed, folder)
    assert (folder / "01-distill" / "manifest.json").exists()
