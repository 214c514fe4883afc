"""What this machine takes for a run's work, measured for some seconds on models of a few layers.

The models have the run's own shapes, vocabulary and text, and what is measured is the run's own code: a row
that is made, exported, checked and evaluated; a stage that trains for a few steps; forward passes; the
workloads that are timed. Two depths are measured, and the rest follows in proportion to weights: the layers
are what differs between them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.evaluation.memory import own_peak_rss_bytes
from roots_compress.events import Event, Events, Figure
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.costs import Line, RowCosts, TrainingCosts, body, multiplied, trained
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.pipeline.pace import STEADY_SECONDS, pass_seconds, usual_seconds
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
from roots_compress.tasks.perplexity import LOGITS_BYTES
from roots_compress.training.memory import hand_back_free_memory

SHALLOW, DEEP = 2, 6
"""Layers of a stack that are measured: two, and more of them while they are small."""
DEEP_WEIGHTS = 24_000_000
"""Weights of the layers of the deeper model, about, where a model has more than two layers of them."""
FEW_STEPS, MOST_STEPS = 4, 16
"""Of a training; the first is longer than the others, and is not counted."""
MOST_COPIES = 8
"""Bytes of memory for one of weights, at the most: a model, a graph, what kernels lay out, and room."""
PASSED, LENGTH = 1024, 256
"""Tokens of a forward pass that is timed, and of each window in it."""


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

    @cached_property
    def examples(self) -> int:
        """How many examples the run's quality is measured on."""
        return len(self._setting.held_out.examples(self._tokenizer).input_ids)

    @cached_property
    def costs(self) -> RowCosts:
        """What every row takes."""
        # What a process does once, such as importing, is no part of a row.
        self._row(SHALLOW, self._with_windows(1))
        shallow, deeper = rows = [self._row(depth, self._few_windows) for depth in self.depths]
        each = Line.through((0.0, 0.0), (multiplied(deeper.spec), self._example_seconds(deeper)))
        times = [(body(row.spec), self._workloads(row.stage)) for row in rows]

        def through(cost: Callable[[_Row], tuple[float, float]], steepest: float = math.inf) -> Line:
            return Line.through(cost(shallow), cost(deeper), steepest=steepest)

        costs = RowCosts(
            fixed=through(
                lambda row: (body(row.spec), row.seconds - row.examples * each.at(multiplied(row.spec)))
            ),
            example=each,
            workloads={
                length: Line.through(*((weights, found[length]) for weights, found in times))
                for length in times[-1][1]
            },
            opening=0.0,
            peak=through(lambda row: (4.0 * row.spec.parameters, row.peak), MOST_COPIES),
            graph=through(
                lambda row: (
                    float(len(row.spec.layers)),
                    float(row.stage.result.metrics.bytes - 4 * row.spec.parameters),
                )
            ),
        )
        began = time.perf_counter()
        once = self._setting.recipe.evaluation.model_copy(update={"repeats": 1})
        recipe = self._setting.recipe.model_copy(update={"evaluation": once})
        time_rows([deeper.stage], replace(self._setting, recipe=recipe), self._events, "timing")
        spent = time.perf_counter() - began
        return replace(costs, opening=max(0.0, spent - costs.timing(body(deeper.spec), repeats=1)))

    @cached_property
    def passes(self) -> Line:
        """Seconds of one token in a forward pass through the layers, by their weights."""
        length = min(LENGTH, self._whole.spec.max_positions)
        rows = max(1, PASSED // length)
        cut = [with_few_layers(self._whole.spec, depth) for depth in self.depths]
        few, many = ((body(spec), pass_seconds(spec, rows, length) / (rows * length)) for spec in cut)
        return Line.through(few, many)

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Measure a stage that trains, on few layers, few steps and little calibration text."""
        points: list[tuple[float, ...]] = []
        steps = FEW_STEPS
        for depth in dict.fromkeys(min(depth, len(before.spec.layers)) for depth in self.depths):
            cut = ExpectedModel(with_few_layers(before.spec, depth))
            lessened = stage_of(config).in_small(config, Small(before.spec, cut.spec, steps, depth))
            heard = _Steps()
            seconds, peak = self._stage_seconds(lessened, cut, heard)
            made = stage_of(config).expect(lessened, cut).model
            points.append(
                (trained(cut, made), max(0.0, seconds - heard.count * heard.usual), heard.usual, peak)
            )
            steps = max(FEW_STEPS, min(MOST_STEPS, round(2 * STEADY_SECONDS / max(heard.usual, 1e-3))))
        (few, *low), (many, *up) = points[0], points[-1]
        limits = (math.inf, math.inf, 4 * MOST_COPIES)
        return TrainingCosts(
            *(
                Line.through((few, less), (many, more), steepest=limit)
                for less, more, limit in zip(low, up, limits, strict=True)
            )
        )

    def _stage_seconds(self, config: StageConfig, cut: ExpectedModel, heard: _Steps) -> tuple[float, float]:
        checkpoint = stand_in(cut.spec, self._tokenizer)
        work = self._folder / f"work{self._made}"
        self._made += 1
        work.mkdir()
        context = StageContext(
            text=self._setting.text,
            device=self._setting.device,
            seed=self._setting.recipe.seed,
            work=work,
            events=Events(*self._events.sinks, heard),
            export=self._setting.recipe.export,
        )
        with _peak() as peak:
            began = time.perf_counter()
            stage_of(config).run(config, checkpoint, context)
            seconds = time.perf_counter() - began
        return seconds, peak[0]

    def _row(self, depth: int, setting: Setting) -> _Row:
        """Make a row of a model of few layers, as a run makes its first."""
        spec = with_few_layers(self._whole.spec, depth)
        model = self._folder / f"model{depth}"
        if not model.exists():
            save_checkpoint(stand_in(spec, self._tokenizer), model)
        recipe: Recipe = setting.recipe.model_copy(update={"model": model})
        setting = replace(setting, recipe=recipe)
        ((step, key),) = keys_of(setting)
        self._made += 1
        with RunFolder.open(self._folder / f"run{self._made}") as run, _peak() as peak:
            began = time.perf_counter()
            stage = make_stage(run, 0, step, key, None, setting, self._events)
            seconds = time.perf_counter() - began
        examples = len(setting.held_out.examples(self._tokenizer).input_ids)
        return _Row(spec, stage, seconds, examples, peak[0])

    @cached_property
    def _few_windows(self) -> Setting:
        """The setting of a run with few held-out windows: more than are read at a time, which fill memory."""
        evaluation = self._setting.recipe.evaluation
        logits_bytes = 4 * self._whole.spec.embeddings.vocabulary * evaluation.block_size
        return self._with_windows(min(evaluation.windows, max(2, 2 * LOGITS_BYTES // logits_bytes)))

    def _with_windows(self, windows: int) -> Setting:
        """Return the setting of a run that measures its model alone, on so many held-out windows."""
        given = self._setting.recipe
        recipe: Recipe = given.model_copy(
            update={
                "stages": (),
                "search": None,
                "data": given.data.model_copy(update={"labels": ()}),
                "evaluation": given.evaluation.model_copy(update={"windows": windows}),
            }
        )
        held_out = HeldOut(recipe, self._setting.text, self._setting.task)
        return replace(self._setting, recipe=recipe, held_out=held_out)

    def _example_seconds(self, row: _Row) -> float:
        """Return the seconds in which a graph and its checkpoint read one example."""
        task = self._setting.task
        examples = self._few_windows.held_out.examples(self._tokenizer)
        engine = task.open_graph(find_graph(row.stage.onnx), threads=self._setting.threads, provider="cpu")
        model = task.serve_model(load_checkpoint(row.stage.checkpoint).model)
        spent = usual_seconds(lambda: task.measure(engine, examples, original=model))
        return spent / len(examples.input_ids)

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
        decoded = evaluation.decode_tokens
        return {
            length: usual_seconds(partial(task.run_workloads, engine, tokens, length, decoded))
            for length in lengths
        }


@dataclass(frozen=True)
class _Row:
    spec: ModelSpec
    stage: CommittedStage
    seconds: float
    examples: int
    peak: float


class _Steps:
    """When the steps of a training ended: a sink of events."""

    def __init__(self) -> None:
        self._ended: dict[int, float] = {}

    def __call__(self, event: Event) -> None:
        if isinstance(event, Figure) and event.step is not None:
            self._ended.setdefault(event.step, time.perf_counter())

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._ended)

    @property
    def usual(self) -> float:
        """Median seconds of a step, without the first; 0 where there was no other."""
        ended = [*self._ended.values()]
        return median(after - before for before, after in pairwise(ended)) if ended[1:] else 0.0


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
