"""What this machine takes for a run's work, measured for some seconds on models of a few layers.

The models have the run's own shapes, vocabulary and text, and what is measured is the run's own code: a row
that is made, exported, checked and evaluated; a stage that trains for a few steps; forward passes of
calibration text; the workloads that are timed. Two depths are measured, and the rest follows in proportion to
weights: the layers are what differs between them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.calibration.activations import BATCH_SIZE, batches
from roots_compress.checkpoints.checkpoint import Checkpoint, save_checkpoint
from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.configs.recipe.walk import training_of
from roots_compress.evaluation.memory import own_peak_rss_bytes
from roots_compress.events import Events
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.costs import Line, RowCosts, TrainingCosts, body, multiplied, trained
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.runner import time_rows
from roots_compress.pipeline.stage_runner import make_stage
from roots_compress.pipeline.stand_ins import stand_in, with_few_layers
from roots_compress.pipeline.steps import keys_of
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage
from roots_compress.runtime.graph_folder import find_graph
from roots_compress.stages.base import MakerStage, StageContext
from roots_compress.stages.expected import ExpectedModel, Small
from roots_compress.stages.registry import stage_of
from roots_compress.system.memory import forget_peak
from roots_compress.training.memory import hand_back_free_memory

SHALLOW, DEEP = 2, 6
"""Layers of a stack that are measured: two, and more of them while they are small."""
DEEP_WEIGHTS = 24_000_000
"""Weights of the layers of the deeper model, about, where a model has more than two layers of them."""
FEW_STEPS, MORE_STEPS = 1, 4
TOKENS = 2048
"""Of the held-out windows that one measurement has more than the other, about."""
PASSED = 1024
"""Tokens of a forward pass that is timed, about."""


class Probe:
    """Measures on this machine.

    Args:
        setting: of the run.
        tokenizer: the run's.
        whole: the model that the run begins with.
        folder: a temporary one.
        events: where stages tell of their work.
    """

    def __init__(
        self,
        setting: Setting,
        tokenizer: PreTrainedTokenizerFast,
        whole: ExpectedModel,
        folder: Path,
        events: Events,
    ) -> None:
        torch.set_num_threads(setting.threads)
        self._setting, self._tokenizer, self._whole = setting, tokenizer, whole
        self._folder, self._events = folder, events
        self._made = 0
        layers = max(1, whole.spec.body_parameters // len(whole.spec.layers))
        deep = max(SHALLOW, min(DEEP, -(-DEEP_WEIGHTS // layers)))
        self.depths = SHALLOW, deep

    @property
    def examples(self) -> int:
        """How many examples the run's quality is measured on."""
        return len(self._setting.held_out.examples(self._tokenizer).input_ids)

    def row(self) -> RowCosts:
        """Measure what every row takes."""
        few, deep = self.depths
        shallow, deeper = self._row(few, 1), self._row(deep, 1)
        more = max(2, min(self._setting.recipe.evaluation.windows, 1 + TOKENS // self._length()))
        longer = self._row(deep, more)
        extra = max(1, longer.examples - deeper.examples)
        example = max(0.0, longer.seconds - deeper.seconds) / extra
        each = Line.through((0.0, 0.0), (multiplied(deeper.spec), example))
        fixed = [
            (body(row.spec), row.seconds - row.examples * each.at(multiplied(row.spec)))
            for row in (shallow, deeper)
        ]
        graphs = [
            (float(len(row.spec.layers)), float(row.stage.result.metrics.bytes - 4 * row.spec.parameters))
            for row in (shallow, deeper)
        ]
        times = {row.spec.body_parameters: self._workloads(row.stage) for row in (shallow, deeper)}
        contexts = {
            length: Line.through(
                (body(shallow.spec), times[shallow.spec.body_parameters][length]),
                (body(deeper.spec), times[deeper.spec.body_parameters][length]),
            )
            for length in times[deeper.spec.body_parameters]
        }
        peaks = [(4.0 * row.spec.parameters, row.peak) for row in (shallow, longer)]
        costs = RowCosts(
            fixed=Line.through(*fixed),
            example=each,
            workloads=contexts,
            opening=0.0,
            peak=Line.through(*peaks),
            graph=Line.through(*graphs),
        )
        began = time.perf_counter()
        once = self._setting.recipe.evaluation.model_copy(update={"repeats": 1})
        recipe = self._setting.recipe.model_copy(update={"evaluation": once})
        time_rows([deeper.stage], replace(self._setting, recipe=recipe), self._events, "timing")
        spent = time.perf_counter() - began
        return replace(costs, opening=max(0.0, spent - costs.timing(body(deeper.spec), repeats=1)))

    def pass_seconds(self) -> Line:
        """Measure a forward pass of calibration text: seconds of one token, by the weights of the layers."""
        length = min(256, self._whole.spec.max_positions)
        count = max(1, min(BATCH_SIZE, PASSED // length))
        windows = self._setting.task.training_windows(
            self._setting.text.train, self._tokenizer, length, seed=self._setting.recipe.seed, limit=count
        )
        points = []
        for depth in self.depths:
            model = self._stand_in(self._whole, depth).model
            inputs = next(batches(windows, count))
            with torch.no_grad():
                seconds = _fastest(partial(model.model, **inputs, use_cache=False))
            points.append((body(model.config.spec), seconds / windows.input_ids[:count].size))
        return Line.through(*points)

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Measure a stage that trains, on few layers, few steps and little calibration text."""
        points: list[tuple[float, ...]] = []
        for depth in dict.fromkeys(min(depth, len(before.spec.layers)) for depth in self.depths):
            cut = ExpectedModel(with_few_layers(before.spec, depth))
            times = []
            for steps in (FEW_STEPS, MORE_STEPS):
                small = Small(before.spec, cut.spec, steps, depth)
                lessened = stage_of(config).in_small(config, small)
                times.append(self._stage_seconds(lessened, cut))
            (once, _), (often, peak) = times
            done = max(1, _steps(lessened) - FEW_STEPS)
            each = max(0.0, often - once) / done
            made = stage_of(config).expect(lessened, cut).model
            points.append((trained(cut, made), max(0.0, once - each), each, peak))
        few, many = points[0], points[-1]
        return TrainingCosts(
            *(Line.through((few[0], low), (many[0], up)) for low, up in zip(few[1:], many[1:], strict=True))
        )

    def _stage_seconds(self, config: StageConfig, cut: ExpectedModel) -> tuple[float, float]:
        checkpoint = stand_in(cut.spec, self._tokenizer)
        work = self._folder / f"work{self._made}"
        self._made += 1
        work.mkdir()
        context = StageContext(
            text=self._setting.text,
            device=self._setting.device,
            seed=self._setting.recipe.seed,
            work=work,
            events=self._events,
            export=self._setting.recipe.export,
        )
        with _peak() as peak:
            began = time.perf_counter()
            stage_of(config).run(config, checkpoint, context)
            seconds = time.perf_counter() - began
        return seconds, peak[0]

    def _stand_in(self, whole: ExpectedModel, depth: int) -> Checkpoint:
        return stand_in(with_few_layers(whole.spec, depth), self._tokenizer)

    def _row(self, depth: int, windows: int) -> _Row:
        """Make a row of a model of few layers, as a run makes its first."""
        model = self._folder / f"model{depth}"
        if not model.exists():
            save_checkpoint(self._stand_in(self._whole, depth), model)
        given = self._setting.recipe
        recipe: Recipe = given.model_copy(
            update={
                "model": model,
                "stages": (),
                "search": None,
                "data": given.data.model_copy(update={"labels": ()}),
                "evaluation": given.evaluation.model_copy(update={"windows": windows}),
            }
        )
        setting = replace(
            self._setting,
            recipe=recipe,
            held_out=HeldOut(recipe, self._setting.text, self._setting.task),
        )
        ((step, key),) = keys_of(setting)
        self._made += 1
        with RunFolder.open(self._folder / f"run{self._made}") as run, _peak() as peak:
            began = time.perf_counter()
            stage = make_stage(run, 0, step, key, None, setting, self._events)
            seconds = time.perf_counter() - began
        examples = len(setting.held_out.examples(self._tokenizer).input_ids)
        return _Row(with_few_layers(self._whole.spec, depth), stage, seconds, examples, peak[0])

    def _length(self) -> int:
        return self._setting.recipe.evaluation.block_size

    def _workloads(self, stage: CommittedStage) -> dict[int, float]:
        """Return the seconds of a graph's workloads at each context."""
        task, evaluation = self._setting.task, self._setting.recipe.evaluation
        engine = task.open_graph(find_graph(stage.onnx), threads=self._setting.threads, provider="cpu")
        lengths = task.lengths(
            evaluation.contexts, decode_tokens=evaluation.decode_tokens, longest=engine.max_context
        )
        tokens = np.random.default_rng(0).integers(
            engine.vocab_size, size=(1, max(lengths) + evaluation.decode_tokens)
        )

        def timed(length: int) -> float:
            found = task.run_workloads(engine, tokens, length, evaluation.decode_tokens)
            return sum(seconds for _, seconds in found)

        return {length: min(timed(length), timed(length)) for length in lengths}


@dataclass(frozen=True)
class _Row:
    spec: ModelSpec
    stage: CommittedStage
    seconds: float
    examples: int
    peak: float


def make_first(
    setting: Setting, folder: Path, events: Events
) -> tuple[PreTrainedTokenizerFast, ModelSpec, float]:
    """Return tokenizer and shape of the model that a first stage makes, and the seconds that making takes."""
    config = setting.recipe.stages[0]
    stage = stage_of(config)
    assert isinstance(stage, MakerStage)
    context = StageContext(setting.text, setting.device, setting.recipe.seed, folder, events)
    began = time.perf_counter()
    made = stage.make(config, context)
    return made.tokenizer, made.model.config.spec, time.perf_counter() - began


def _steps(config: StageConfig) -> int:
    return max((training.steps for _, training in training_of(config)), default=FEW_STEPS)


def _fastest(work: Callable[[], object], *, times: int = 3) -> float:
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return min(found)


@contextmanager
def _peak() -> Iterator[list[float]]:
    """Note this process's peak of memory within the block; 0 where the system does not tell."""
    found = [0.0]
    hand_back_free_memory(least=0)
    counted = forget_peak()
    try:
        yield found
    finally:
        if counted:
            found[0] = float(own_peak_rss_bytes())
