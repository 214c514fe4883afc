"""The list of stages is whole, and a stage that is added to it needs nothing else of the pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from pydantic import Field

from roots_compress.configs.base import PathSetting, StageName
from roots_compress.configs.recipe.schema import STAGES, Recipe, StageConfig
from roots_compress.configs.stage import StageSettings
from roots_compress.errors import GateMissedError, InputError, Key
from roots_compress.pipeline.preflight import prepare
from roots_compress.pipeline.runner import plan_recipe
from roots_compress.report.gates import require
from roots_compress.results import GateResult
from roots_compress.stages import registry
from roots_compress.stages.base import ModelInfo, Stage, StageContext, StageOutcome
from roots_compress.stages.registry import IMPLEMENTATIONS
from tests.chains import TRAIN, carry_out, recipe

if TYPE_CHECKING:
    from roots_compress.checkpoints.checkpoint import Checkpoint


def test_each_member_of_the_union_has_a_stage() -> None:
    assert set(IMPLEMENTATIONS) == set(STAGES.values())
    makers = {config for config, stage in IMPLEMENTATIONS.items() if type(stage).make is not Stage.make}
    assert makers == {config for config in STAGES.values() if config.makes_model}


def test_stages_are_known_without_torch() -> None:
    script = "import sys, roots_compress.stages.registry; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


class CountConfig(StageSettings):
    """Counts large weights, and changes none."""

    kind: Literal["count"] = "count"
    name: StageName = "count"
    above: PathSetting
    """A file with the number that large weights are above."""
    at_most: int | None = None


class CountStage(Stage[CountConfig]):
    def check(self, config: CountConfig, info: ModelInfo) -> ModelInfo:
        if config.at_most is not None and config.at_most < 0:
            raise InputError("is below 0", where=Key("at_most"))
        return info

    def inputs(self, config: CountConfig) -> dict[str, Path]:
        return {"bound": config.above}

    def run(self, config: CountConfig, checkpoint: Checkpoint, context: StageContext) -> StageOutcome:
        bound = float(config.above.read_text(encoding="utf-8"))
        found = sum(int((each > bound).sum()) for each in checkpoint.model.parameters())
        gates: tuple[GateResult, ...] = ()
        if config.at_most is not None:
            gates = (GateResult("at_most", config.at_most, found, passed=found <= config.at_most),)
        return StageOutcome(checkpoint, {"large_weights": found}, gates=gates)


class RecipeWithCount(Recipe):
    stages: Annotated[tuple[StageConfig | CountConfig, ...], Field(strict=False)] = ()  # type: ignore[assignment]


def test_a_stage_of_ones_own_goes_through_the_pipeline(
    text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages: dict[type[StageSettings], Stage[Any]] = {**IMPLEMENTATIONS, CountConfig: CountStage()}
    monkeypatch.setattr(registry, "IMPLEMENTATIONS", stages)
    bound, folder = tmp_path / "bound.txt", tmp_path / "run"
    bound.write_text("0.0", encoding="utf-8")

    def wanted(**settings: Any) -> Recipe:
        given = recipe(text_file, TRAIN).model_dump(exclude={"stages"}, exclude_defaults=True)
        count = {"kind": "count", "above": bound, **settings}
        return RecipeWithCount.model_validate({**given, "stages": [TRAIN, count]})

    with pytest.raises(InputError, match="is below 0") as refused:
        prepare(wanted(at_most=-1), folder)
    assert refused.value.where == "stages[1].at_most"
    metrics = carry_out(wanted(at_most=1), folder)
    assert [stage.kind for stage in metrics.stages] == ["baseline", "count"]
    found = metrics.stages[1].notes["large_weights"]
    assert isinstance(found, int)
    assert 0 < found < metrics.stages[1].metrics.parameters
    assert metrics.gates == (GateResult("count.at_most", 1, found, passed=False, stage="count"),)
    with pytest.raises(GateMissedError, match=r"count\.at_most"):
        require(metrics.gates, where=str(folder))

    plan = list(plan_recipe(prepare(wanted(at_most=1), folder), folder))
    assert [line.rpartition(": ")[2] for line in plan] == ["finished, will be reused"] * 2
    bound.write_text("0.5", encoding="utf-8")
    plan = list(plan_recipe(prepare(wanted(at_most=1), folder), folder))
    assert plan[1].startswith("01 count: to be made again: inputs.bound: ")
