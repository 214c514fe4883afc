"""A quick estimate of the times of a run's rows at its start, from earlier tries or one short timing.

`plan` takes the time for a good forecast. A starting run has only a second: one layer is timed, and
everything else is computed in forward passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from roots_compress.calibration.own_text import writing_passes
from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.configs.recipe.walk import losses_of, training_of
from roots_compress.models.device import resolve_precision
from roots_compress.pipeline.forecast.costs import Line, RowCosts, TrainingCosts, multiplied
from roots_compress.pipeline.forecast.expected_rows import ExpectedRow, expected_rows
from roots_compress.pipeline.forecast.pace import pace
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.statuses import Status, statuses_of
from roots_compress.run.stages import CommittedStage
from roots_compress.stages.expected import ExpectedModel
from roots_compress.stages.registry import stage_of

ROW_SECONDS, ROW_PASSES = 3.0, 4e3
"""Costs of a row that do not depend on the text: starting processes (seconds); parity check, samples and
measuring memory (forward passes of a token)."""
READERS = 3
"""A graph and its checkpoint read the held-out text, and their logits are compared."""
STEP = 3.5
"""Passes of a model that is trained, for a token: forward, backward, and the optimizer."""


class Outlook:
    """The cost of a run's work, from one timing."""

    def __init__(self, setting: Setting, first: ExpectedModel) -> None:
        evaluation, tokenizer = setting.recipe.evaluation, setting.first.tokenizer
        self._pace = pace(first.spec, threads=setting.threads)
        self.examples, length = evaluation.windows, evaluation.block_size
        if tokenizer is not None:
            self.examples, length = setting.held_out.examples(tokenizer()).input_ids.shape
        nothing = Line(0.0, 0.0)
        self.passes = Line(0.0, self._pace)
        precision = resolve_precision("auto", setting.device)
        self.fast_passes = Line(0.0, pace(first.spec, threads=setting.threads, precision=precision))
        self.costs = RowCosts(
            fixed=Line(ROW_SECONDS, ROW_PASSES * self._pace),
            example=Line(0.0, READERS * length * self._pace),
            workloads={},
            opening=0.0,
            peak=nothing,
        )

    def writing(self, windows: int, length: int) -> Line:
        """Return the cost of a model's own text, from the cost of a step of writing in passes."""
        return Line(0.0, writing_passes(windows, length) * self.fast_passes.slope)

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Return the cost of a training stage: its teacher reads, and its model learns."""
        made = stage_of(config).expect(config, before).model
        passes = STEP * multiplied(made.spec)
        if [*losses_of(config)]:
            passes += multiplied(before.spec)
        (_, each), *_ = training_of(config)
        tokens = each.batch_size * each.accumulation * each.block_size
        nothing = Line(0.0, 0.0)
        return TrainingCosts(nothing, Line(tokens * self._pace * passes, 0.0), nothing)


def expected_seconds(
    setting: Setting, folder: Path, committed: Sequence[CommittedStage]
) -> dict[tuple[str, str], float]:
    """Return the approximate seconds of a run's rows, by kind and name.

    Rows made before use their measured time. A failing estimate is left out and ends no run.
    """
    earlier = {(stage.kind, stage.name): stage.result.whole_seconds for stage in committed}
    with suppress(Exception):
        statuses = statuses_of(setting, folder)
        if any(_label(each) not in earlier for each in statuses):
            rows = _estimated(setting, statuses)[: len(statuses)]
            return {_label(row.status): seconds for row, seconds in rows} | earlier
    return earlier


def choice_seconds(setting: Setting, folder: Path) -> dict[str, float]:
    """Return the approximate seconds of a search's choices, each as if it followed the recipe's stages."""
    with suppress(Exception):
        statuses = statuses_of(setting, folder)
        return {
            row.status.step.name: seconds for row, seconds in _estimated(setting, statuses)[len(statuses) :]
        }
    return {}


def _estimated(setting: Setting, statuses: Sequence[Status]) -> list[tuple[ExpectedRow, float]]:
    rows = expected_rows(setting, statuses, checked=False)
    first = rows[0].expected.model
    outlook = Outlook(setting, first)
    return [
        (row, row.work_seconds(outlook, row.training(outlook)) + row.check_seconds(outlook, first))
        for row in rows
    ]


def _label(status: Status) -> tuple[str, str]:
    return status.step.kind, status.step.name
