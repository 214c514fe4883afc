"""Rehearses a whole recipe on a tiny model, so that a failure in its last stage is found at once.

Every stage runs on two layers of random weights of the run's own shapes, with a small vocabulary, a few
steps and little text: its work, its checkpoint, its graph and the parity check, its figures; at the end
timing, report and gates. A stage that fails is left out, and the next one starts from the stage before it, so
that one rehearsal finds the fault of each. Everything is in a temporary folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.inspect import inspect_source
from roots_compress.checkpoints.tokenizer import load_tokenizer
from roots_compress.configs.evaluate import EvaluationConfig
from roots_compress.configs.recipe.schema import StageConfig
from roots_compress.configs.recipe.walk import placed_stages
from roots_compress.errors import Location, RootsError, located
from roots_compress.events import Events
from roots_compress.io.temporary import temporary_folder
from roots_compress.pipeline.forecast.stand_ins import StandIns, with_few_layers
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.runner import describe, finish
from roots_compress.pipeline.stage_runner import make_stage
from roots_compress.pipeline.steps import keys_of
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage
from roots_compress.stages.base import ModelInfo
from roots_compress.stages.expected import ExpectedModel, Small
from roots_compress.stages.registry import stage_of
from roots_compress.system.memory import memory_errors

LAYERS, STEPS, DECODED = 2, 2, 4
WINDOWS, LENGTH = 1, 256
"""Windows of held-out text, and the most tokens of each: with a large vocabulary, logits take longest."""


@dataclass(frozen=True)
class Rehearsed:
    """The result of rehearsing one stage, or the steps after all stages."""

    label: str
    seconds: float
    error: RootsError | None = None
    """The error with which the run would fail; None if it works."""


def rehearse(setting: Setting) -> Iterator[Rehearsed]:
    """Rehearse a recipe, and yield the result of each stage, then of timing, report and gates.

    A search's choices follow the stages one by one.
    """
    torch.set_num_threads(setting.threads)
    with temporary_folder() as made:
        folder = made.resolve()
        with RunFolder.open(folder / "run") as run:
            yield from _Rehearsal(setting, run, folder / "models").carry_out()


class _Rehearsal:
    """One rehearsal under way."""

    def __init__(self, setting: Setting, run: RunFolder, models: Path) -> None:
        self._run, self._models = run, models
        self._stand_ins = StandIns(setting.text.train)
        self._events = Events()  # Figures of random weights are meaningless.
        recipe = setting.recipe
        self._stages = [*placed_stages(recipe)]
        self._chained = len(recipe.stages)
        self._whole: ExpectedModel | None = None
        """The starting model of the next stage in the run."""
        self._cut: ExpectedModel | None = None
        """Its starting model here."""
        model = None
        if recipe.model is not None:
            assert setting.first.spec is not None
            self._whole = ExpectedModel(setting.first.spec)
            model = self._stand_in(recipe.model)
            rows = inspect_source(model).vocab_size
            cut = with_few_layers(setting.first.spec, LAYERS).with_embeddings(vocabulary=rows)
            self._cut = ExpectedModel(cut)
        small = recipe.model_copy(
            update={
                "model": model,
                "stages": (),
                "search": None,
                "gates": recipe.gates.without_stored(),  # which was measured on more windows
                "evaluation": _few_windows(recipe.evaluation),
            }
        )
        self._setting = replace(setting, recipe=small, held_out=HeldOut(small, setting.text, setting.task))

    def carry_out(self) -> Iterator[Rehearsed]:
        """Yield the result of each stage."""
        rows: list[CommittedStage] = []
        if self._setting.recipe.model is not None:
            yield self._timed("baseline", lambda: rows.append(self._make(self._setting, (), None)))
            if not rows:
                return
        for number, (place, config) in enumerate(self._stages):
            done = yield from self._stage(place, config, rows)
            if done is None and not rows:
                return  # Nothing begins the chain.
            if done is not None and number < self._chained:
                rows.append(done)
        yield self._end(rows)

    def _stage(
        self, place: Location, config: StageConfig, rows: list[CommittedStage]
    ) -> Generator[Rehearsed, None, CommittedStage | None]:
        stage, made = stage_of(config), list[CommittedStage]()

        def work() -> None:
            with located(place, of_recipe=True):
                if self._whole is not None and self._whole.certain:
                    info = ModelInfo.foreseen(self._whole.spec, self._tokenizer(rows[0]), self._setting.task)
                    stage.check_start(config, info, self._setting.text, seed=self._setting.recipe.seed)
                whole = stage.expected(config, self._whole).model
                spec = whole.spec if self._whole is None else self._whole.spec
                cut = with_few_layers(spec, LAYERS) if self._cut is None else self._cut.spec
                small = stage.in_small(config, Small(spec, cut, STEPS, LAYERS, self._stand_in))
                small = small.model_copy(update={"gates": small.gates and small.gates.without_stored()})
                cut_after = stage.expected(small, self._cut).model
            recipe = self._setting.recipe
            setting = replace(
                self._setting, recipe=recipe.model_copy(update={"stages": (*recipe.stages, small)})
            )
            made.append(self._make(setting, place, rows[-1] if rows else None))
            if place[0] == "stages":
                self._setting, self._whole, self._cut = setting, whole, cut_after

        yield self._timed(config.name, work)
        return made[0] if made else None

    def _tokenizer(self, first: CommittedStage) -> Callable[[], PreTrainedTokenizerFast]:
        known = self._setting.first.tokenizer
        return known or (lambda: load_tokenizer(inspect_source(first.checkpoint)))

    def _make(self, setting: Setting, place: Location, before: CommittedStage | None) -> CommittedStage:
        index = 0 if before is None else before.index + 1
        *_, (step, key) = keys_of(setting)
        with located(place, of_recipe=True):
            step = replace(step, place=place)
            return make_stage(self._run, index, step, key, before, setting, self._events)

    def _end(self, rows: list[CommittedStage]) -> Rehearsed:
        def work() -> None:
            describe(self._run, self._setting.recipe, None)
            finish(self._run, rows, self._setting, self._events)

        return self._timed("timing, report and gates", work)

    def _timed(self, label: str, work: Callable[[], object]) -> Rehearsed:
        start = time.perf_counter()
        try:
            with memory_errors():
                work()
        except RootsError as error:
            return Rehearsed(label, time.perf_counter() - start, error)
        return Rehearsed(label, time.perf_counter() - start)

    def _stand_in(self, source: Path) -> Path:
        self._models.mkdir(exist_ok=True)
        place = self._models / str(len([*self._models.iterdir()]))
        return self._stand_ins.write(source, place, layers=LAYERS)


def _few_windows(config: EvaluationConfig) -> EvaluationConfig:
    return config.model_copy(
        update={
            "windows": min(config.windows, WINDOWS),
            "block_size": min(config.block_size, LENGTH),
            "decode_tokens": min(config.decode_tokens, DECODED),
            "repeats": 1,
        }
    )
