"""The start and the result of each row of a run: known for finished rows, expected for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.configs.recipe.walk import placed_stages, training_of
from roots_compress.errors import Location, located
from roots_compress.pipeline.forecast.costs import Measures, TrainingCosts, body, trained
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.statuses import Status
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.expected import Expected, ExpectedModel
from roots_compress.stages.registry import stage_of


@dataclass(frozen=True)
class ExpectedRow:
    """A row, its stage's starting model, and its expected result."""

    status: Status
    before: ExpectedModel | None
    expected: Expected
    config: StageConfig | None

    @property
    def trains(self) -> bool:
        """Whether its stage trains."""
        return self.config is not None and bool([*training_of(self.config)])

    def training(self, measures: Measures) -> TrainingCosts | None:
        """Return the cost of its training; None without training."""
        if self.config is None or not self.trains:
            return None
        return measures.training(self.config, self.before or self.expected.model)

    def work_seconds(self, measures: Measures, training: TrainingCosts | None) -> float:
        """Return the seconds of its stage's own work."""
        if self.config is None:
            return 0.0
        before = self.before or self.expected.model
        read = body(before.spec)
        work = self.expected.passes * measures.passes.at(read)
        work += self.expected.fast_passes * measures.fast_passes.at(read)
        work += measures.writing(*self.expected.writes).at(read)
        if training is not None:
            weights = trained(before, self.expected.model)
            steps = sum(each.steps for _, each in training_of(self.config))
            work += training.start.at(weights) + steps * training.step.at(weights)
        return work

    def check_seconds(self, measures: Measures, first: ExpectedModel) -> float:
        """Return the seconds to save, export, check and measure it; `first` is the run's first row."""
        compared = None if self.before is None else first.spec
        return measures.costs.checks(self.expected.model.spec, compared, measures.examples)


def expected_rows(setting: Setting, statuses: Sequence[Status], *, checked: bool = True) -> list[ExpectedRow]:
    """Return start and result of each row of a recipe's chain, then of a search's choices.

    Args:
        checked: whether to check that each stage can begin on its model.

    Raises:
        InputError: a stage cannot.
    """
    rows: list[ExpectedRow] = []
    before: ExpectedModel | None = None
    for status in statuses:
        config = status.step.config
        if status.reused is not None:
            source = inspect_source(status.reused.checkpoint)
            found = ExpectedModel(source.spec, source.config.get("quantization"))
            expected = Expected(found)
        elif config is None:
            assert setting.first.spec is not None
            expected = Expected(ExpectedModel(setting.first.spec))
        else:
            expected = _foreseen(setting, config, status.step.place, before, checked=checked)
        rows.append(ExpectedRow(status, before, expected, config))
        before = expected.model
    for place, choice in [*placed_stages(setting.recipe)][len(setting.recipe.stages) :]:
        expected = _foreseen(setting, choice, place, before, checked=checked)
        rows.append(ExpectedRow(Status.of_choice(len(statuses), choice, place), before, expected, choice))
    return rows


def _foreseen(
    setting: Setting, config: StageConfig, place: Location, before: ExpectedModel | None, *, checked: bool
) -> Expected:
    """Return a stage's expected result, after checking that it can begin on its model."""
    stage, tokenizer = stage_of(config), setting.first.tokenizer
    with located(place, of_recipe=True):
        if checked and before is not None and before.certain and tokenizer is not None:
            info = ModelInfo.foreseen(before.spec, tokenizer, setting.task)
            stage.check_start(config, info, setting.text, seed=setting.recipe.seed)
        return stage.expected(config, before)
