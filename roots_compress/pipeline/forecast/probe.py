"""What this machine takes for a run's work, measured for some seconds on models of a few layers.

The models have the run's own shapes and text, and what is measured is the run's own code: a row that is made,
exported, checked and evaluated; a stage that trains for a few steps; forward passes; the workloads that are
timed. Two depths are measured, and the rest follows in proportion to weights: the layers are what differs
between them. Where the vocabulary is large, a smaller one is in its place, its weights count as those of
layers do, and what the logits of all tokens add is measured by itself. A training has the run's own.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.events import Events
from roots_compress.models.spec import ModelSpec
from roots_compress.pipeline.forecast.costs import Line, RowCosts, TrainingCosts, body, multiplied
from roots_compress.pipeline.forecast.pace import least_seconds, pass_seconds
from roots_compress.pipeline.forecast.probe_training import peak_bytes, training_costs
from roots_compress.pipeline.forecast.stand_ins import StandIns, random_model, stand_in, with_few_layers
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.runner import time_rows
from roots_compress.pipeline.stage_runner import make_stage
from roots_compress.pipeline.steps import keys_of
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage
from roots_compress.runtime.onnx.graph_folder import find_graph
from roots_compress.stages.expected import ExpectedModel
from roots_compress.system.memory import resident_bytes
from roots_compress.tasks.figures.perplexity import LOGITS_BYTES

SHALLOW, DEEP = 2, 6
"""Layers of a stack that are measured: two, and more of them while they are small."""
DEEP_WEIGHTS = 24_000_000
"""Weights of the layers of the deeper model, about, where a model has more than two layers of them."""
MOST_COPIES = 8
"""Bytes of memory for one of weights, at the most: a model, a graph, what kernels lay out, and room."""
PASSED, LENGTH = 512, 256
"""Tokens of a forward pass that is timed, and of each window in it."""


class Probe:
    """Measures on this machine.

    Args:
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
        self._stand_ins = StandIns(setting.text.train)
        self._made = 0
        layers = max(1, whole.spec.body_parameters // len(whole.spec.layers))
        deep = max(SHALLOW, min(DEEP, -(-DEEP_WEIGHTS // layers)))
        self.depths = (SHALLOW if deep > SHALLOW else 1), deep

    @cached_property
    def examples(self) -> int:
        """How many examples the run's quality is measured on."""
        return len(self._setting.held_out.examples(self._tokenizer).input_ids)

    @cached_property
    def costs(self) -> RowCosts:
        """What every row takes."""
        # What a process does once, such as importing, is no part of a row.
        self._row(self.depths[0], self._with_windows(1))
        shallow, deeper = rows = [self._row(depth, self._few_windows) for depth in self.depths]
        narrow = Line.through((0.0, 0.0), (multiplied(deeper.spec), self._example_seconds(deeper)))
        more, held = self._with_all_tokens(narrow)
        read = multiplied(self._cut(self.depths[1]))
        times = [(body(row.spec), self._workloads(row.stage)) for row in rows]

        def through(cost: Callable[[_Row], tuple[float, float]], steepest: float = math.inf) -> Line:
            return Line.through(cost(shallow), cost(deeper), steepest=steepest)

        costs = RowCosts(
            fixed=through(
                lambda row: (body(row.spec), row.seconds - row.examples * narrow.at(multiplied(row.spec)))
            ),
            example=Line.through((0.0, 0.0), (read, narrow.at(read) + more)),
            workloads={
                length: Line.through(*((weights, found[length]) for weights, found in times))
                for length in times[-1][1]
            },
            opening=0.0,
            peak=through(lambda row: (4.0 * row.spec.parameters, row.peak), MOST_COPIES).plus(held),
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
        stored, lacking = self._lacking
        return replace(
            costs,
            fixed=costs.fixed.raised(stored),
            workloads={length: line.raised(lacking) for length, line in costs.workloads.items()},
            opening=max(0.0, spent - costs.timing(body(deeper.spec), repeats=1)),
        )

    @property
    def _lacking(self) -> tuple[float, float]:
        """The weights that a smaller vocabulary lacks: in all, and of those that a token is multiplied by."""
        whole, few = self._cut(1), self._few(1)[0]
        return float(whole.parameters - few.parameters), multiplied(whole) - multiplied(few)

    @cached_property
    def passes(self) -> Line:
        """Seconds of one token in a forward pass through the layers, by their weights."""
        length = min(LENGTH, self._whole.spec.max_positions)
        rows = max(1, PASSED // length)
        cut = [self._few(depth)[0] for depth in self.depths]
        few, many = ((body(spec), pass_seconds(spec, rows, length) / (rows * length)) for spec in cut)
        return Line.through(few, many).raised(self._lacking[1])

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Measure a stage that trains; see `training_costs`."""
        folder = self._folder / f"training{self._made}"
        self._made += 1
        return training_costs(
            self._setting, self._tokenizer, config, before, self.depths, folder, self._events
        )

    def _row(self, depth: int, setting: Setting) -> _Row:
        """Make a row of a model of few layers and tokens, as a run makes its first."""
        spec, tokenizer = self._few(depth)
        model = self._folder / f"model{depth}"
        if not model.exists():
            save_checkpoint(stand_in(spec, tokenizer), model)
        recipe: Recipe = setting.recipe.model_copy(update={"model": model})
        setting = replace(setting, recipe=recipe)
        ((step, key),) = keys_of(setting)
        self._made += 1
        with RunFolder.open(self._folder / f"run{self._made}") as run, peak_bytes() as peak:
            began = time.perf_counter()
            stage = make_stage(run, 0, step, key, None, setting, self._events)
            seconds = time.perf_counter() - began
        examples = len(setting.held_out.examples(tokenizer).input_ids)
        return _Row(spec, tokenizer, stage, seconds, examples, peak[0])

    def _cut(self, depth: int) -> ModelSpec:
        return with_few_layers(self._whole.spec, depth)

    def _few(self, depth: int) -> tuple[ModelSpec, PreTrainedTokenizerFast]:
        return self._stand_ins.few(self._whole.spec, self._tokenizer, depth)

    def _with_all_tokens(self, narrow: Line) -> tuple[float, float]:
        """Measure what the run's own vocabulary adds: the logits of a text are scored and held.

        Args:
            narrow: seconds of an example by the weights that a token is multiplied by, of few tokens.

        Returns:
            seconds of an example and bytes of memory that all tokens add.
        """
        spec = self._cut(1)
        if not any(self._lacking):
            return 0.0, 0.0
        task, examples = self._setting.task, self._few_windows.held_out.examples(self._tokenizer)
        engine = task.serve_model(random_model(ExpectedModel(spec)))
        with peak_bytes() as peak:
            before, began = resident_bytes() or 0, time.perf_counter()
            task.measure(engine, examples, original=engine)
            seconds = time.perf_counter() - began
        more = seconds / len(examples.input_ids) - narrow.at(multiplied(spec))
        return max(0.0, more), max(0.0, peak[0] - before)

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
        task, examples = self._setting.task, self._few_windows.held_out.examples(row.tokenizer)
        engine = task.open_graph(find_graph(row.stage.onnx), threads=self._setting.threads, provider="cpu")
        model = task.serve_model(load_checkpoint(row.stage.checkpoint).model)
        spent = least_seconds(lambda: task.measure(engine, examples, original=model))
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
            length: least_seconds(partial(task.run_workloads, engine, tokens, length, decoded))
            for length in lengths
        }


@dataclass(frozen=True)
class _Row:
    spec: ModelSpec
    tokenizer: PreTrainedTokenizerFast
    stage: CommittedStage
    seconds: float
    examples: int
    peak: float
