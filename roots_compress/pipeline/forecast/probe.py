"""Measures the cost of a run's work on this machine, for a few seconds on a model of few layers.

The model has the run's own shapes and text, and the run's own code is measured: a row that is made,
exported, checked and evaluated; a stage that trains for a few steps; forward passes; text that is written;
the workloads that are timed. The rest is scaled by weights, because only the layers differ. A large
vocabulary is replaced by a smaller one, and its weights count like those of layers. The time to compare the
logits of all tokens is measured separately. A training has the run's own vocabulary.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from roots_compress.calibration.own_text import AT_ONCE, writing_step
from roots_compress.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from roots_compress.configs.recipe.schema import Recipe, StageConfig
from roots_compress.evaluation.memory import peak_rss_bytes
from roots_compress.events import Events
from roots_compress.models.device import Precision, resolve_precision
from roots_compress.pipeline.forecast.costs import Line, RowCosts, TrainingCosts, body, multiplied
from roots_compress.pipeline.forecast.pace import least_seconds, pass_seconds
from roots_compress.pipeline.forecast.probe_training import peak_bytes, training_costs
from roots_compress.pipeline.forecast.stand_ins import StandIns, random_model, stand_in, with_few_layers
from roots_compress.pipeline.held_out import HeldOut
from roots_compress.pipeline.preflight import Setting
from roots_compress.pipeline.stage_runner import make_stage
from roots_compress.pipeline.steps import keys_of
from roots_compress.run.run_folder import RunFolder
from roots_compress.run.stages import CommittedStage
from roots_compress.runtime.onnx.graph_folder import find_graph
from roots_compress.stages.expected import ExpectedModel
from roots_compress.tasks.figures.perplexity import LOGITS_BYTES
from roots_compress.tasks.figures.predictions import WIDENED_BYTES, Predictions, score_both

DEEPEST = 6
"""Most layers of a stack that are measured."""
DEEP_WEIGHTS = 7_000_000
"""Approximate weights of the measured layers, if a model has more than one layer."""
ROW_SECONDS = 1.0
"""Most seconds of a row that do not depend on the model: starting processes, reading a tokenizer."""
READ_TOKENS = 1024
"""Approximate tokens of held-out text for timing reading."""
SCORED = 1 << 22
"""Approximate logits for timing the comparison."""
COPIES = 2.0
"""Bytes of memory per byte of weights while a row is checked: a graph, a checkpoint, and a margin."""
LOGITS_COPIES = 5
"""Bytes of memory per byte of held logits: of both models, computed and kept, and a margin."""
PASSED, LENGTH = 512, 256
"""Tokens of a forward pass that is timed, and of each window in it."""


class Probe:
    """Measures on this machine.

    Args:
        whole: the run's first model.
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
        self._trainings = 0
        self._written: dict[tuple[int, int], Line] = {}
        layers = max(1, whole.spec.body_parameters // len(whole.spec.layers))
        self.depth = max(1, min(DEEPEST, -(-DEEP_WEIGHTS // layers)))
        self._small, self._few_tokens = self._stand_ins.few(whole.spec, tokenizer, self.depth)

    @cached_property
    def examples(self) -> int:
        """How many examples the run's quality is measured on."""
        return len(self._setting.held_out.examples(self._tokenizer).input_ids)

    @cached_property
    def costs(self) -> RowCosts:
        """What every row takes."""
        evaluation = self._setting.recipe.evaluation
        windows = min(evaluation.windows, max(1, READ_TOKENS // evaluation.block_size))
        setting = self._with_windows(windows)
        row = self._row(setting)
        reading, places, choices = self._reading(row, setting)
        few, every = self._small.embeddings.vocabulary, self._whole.spec.embeddings.vocabulary
        run_choices = every if choices == few else choices
        comparing = places * run_choices * _comparing_seconds(run_choices)
        read = row.examples * (reading + comparing * choices / run_choices)
        weights, seconds = body(self._small), max(0.0, row.seconds - read)
        workloads, opening = self._workloads(row.stage)
        base = row.peak - COPIES * 4.0 * self._small.parameters
        fixed = Line.through((0.0, min(ROW_SECONDS, seconds)), (weights, seconds))
        return RowCosts(
            fixed=fixed.raised(self._lacking),
            example=Line(comparing, reading / multiplied(self._small)),
            workloads={length: self._by_body(each) for length, each in workloads.items()},
            opening=opening,
            peak=Line(max(0.0, base) + self._logits_bytes, COPIES),
        )

    @cached_property
    def passes(self) -> Line:
        """Seconds of one token in a forward pass through the layers, by their weights."""
        return self._pass_line("no")

    @cached_property
    def fast_passes(self) -> Line:
        """The same in the precision that the device multiplies fastest."""
        precision = resolve_precision("auto", self._setting.device)
        return self.passes if precision == "no" else self._pass_line(precision)

    def writing(self, windows: int, length: int) -> Line:
        """Return the seconds to write this many windows, by the weights of the layers."""
        if not windows:
            return Line(0.0, 0.0)
        if (windows, length) not in self._written:
            step = writing_step(random_model(self._small), min(windows, AT_ONCE), length)
            steps = length * math.ceil(windows / AT_ONCE)
            self._written[windows, length] = self._by_body(steps * least_seconds(step))
        return self._written[windows, length]

    def training(self, config: StageConfig, before: ExpectedModel) -> TrainingCosts:
        """Measure a stage that trains; see `training_costs`."""
        folder = self._folder / f"training{self._trainings}"
        self._trainings += 1
        depths = [*dict.fromkeys(min(depth, len(before.spec.layers)) for depth in (1, self.depth))]
        if depths[-1] == len(before.spec.layers):
            depths = depths[-1:]  # This is the full model: nothing has to be extrapolated.
        return training_costs(self._setting, self._tokenizer, config, before, depths, folder, self._events)

    def _row(self, setting: Setting) -> _Row:
        """Make a row of a model of few layers and tokens, like a run's first."""
        model = self._folder / "model"
        save_checkpoint(stand_in(self._small, self._few_tokens), model)
        recipe: Recipe = setting.recipe.model_copy(update={"model": model})
        setting = replace(setting, recipe=recipe)
        ((step, key),) = keys_of(setting)
        examples = len(setting.held_out.examples(self._few_tokens).input_ids)
        with RunFolder.open(self._folder / "run") as run, peak_bytes() as peak:
            began = time.perf_counter()
            stage = make_stage(run, 0, step, key, None, setting, self._events)
            seconds = time.perf_counter() - began
        return _Row(stage, seconds, examples, peak[0])

    @cached_property
    def _lacking(self) -> float:
        """The weights that a smaller vocabulary lacks."""
        whole = with_few_layers(self._whole.spec, self.depth)
        return float(whole.parameters - self._small.parameters)

    def _by_body(self, cost: float) -> Line:
        """Return a cost of the small model by the weights of layers, with the run's head for all tokens."""
        slope = cost / multiplied(self._small)
        whole = self._whole.spec
        return Line(slope * (multiplied(whole) - body(whole)), slope)

    def _pass_line(self, precision: Precision) -> Line:
        length = min(LENGTH, self._whole.spec.max_positions)
        rows = max(1, PASSED // length)
        return self._by_body(pass_seconds(self._small, rows, length, precision=precision) / (rows * length))

    def _with_windows(self, windows: int) -> Setting:
        """Return the setting of a run that only measures its model, on this many held-out windows."""
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

    def _reading(self, row: _Row, setting: Setting) -> tuple[float, float, int]:
        """Measure how a graph and its checkpoint read examples.

        Returns:
            the seconds of an example, and of what is then compared: the places of an example, and the logits
            of a place. If nothing is predicted, comparing is a part of reading.
        """
        task, examples = setting.task, setting.held_out.examples(self._few_tokens)
        engine = task.open_graph(find_graph(row.stage.onnx), threads=setting.threads, provider="cpu")
        model = task.serve_model(load_checkpoint(row.stage.checkpoint).model)
        if not task.predicts:
            spent = least_seconds(lambda: task.measure(engine, examples, original=model))
            return spent / row.examples, 0.0, 1
        read: list[Predictions] = []

        def predict() -> None:
            read[:] = task.predictions(model, examples)
            for _ in task.predictions(engine, examples):
                pass

        spent = least_seconds(predict)
        places = sum(len(part.targets) for part in read)
        return spent / row.examples, places / row.examples, read[0].logits.shape[1]

    @property
    def _logits_bytes(self) -> float:
        """Bytes of memory for the logits that are held and compared while examples are read."""
        evaluation, spec = self._setting.recipe.evaluation, self._whole.spec
        if not spec.head.predicts_tokens:
            return 0.0
        example = 4 * spec.embeddings.vocabulary * evaluation.block_size
        held = min(example * evaluation.windows, max(example, LOGITS_BYTES))
        return float(LOGITS_COPIES * (held + WIDENED_BYTES))

    def _workloads(self, stage: CommittedStage) -> tuple[dict[int, float], float]:
        """Return the seconds of a graph's workloads at each context, and of a process that opens it."""
        setting, evaluation = self._setting, self._setting.recipe.evaluation
        task, decoded = setting.task, evaluation.decode_tokens
        engine = task.open_graph(find_graph(stage.onnx), threads=setting.threads, provider="cpu")
        lengths = task.lengths(evaluation.contexts, decode_tokens=decoded, longest=engine.max_context)
        tokens = np.random.default_rng(0).integers(engine.vocab_size, size=(1, max(lengths) + decoded))
        found = {
            length: least_seconds(partial(task.run_workloads, engine, tokens, length, decoded))
            for length in lengths
        }
        began = time.perf_counter()
        peak_rss_bytes(stage.onnx, context=lengths[0], decode_tokens=decoded, threads=setting.threads)
        return found, max(0.0, time.perf_counter() - began - found[lengths[0]])


def _comparing_seconds(choices: int) -> float:
    """Return the seconds to compare a logit with another model's, for this number of choices."""
    count = max(1, SCORED // choices)
    places = np.arange(count)
    logits = np.random.default_rng(0).standard_normal((count, choices), dtype=np.float32)
    part = Predictions(logits, places % choices, places)
    return least_seconds(lambda: score_both([part], [part], count=count)) / logits.size


@dataclass(frozen=True)
class _Row:
    stage: CommittedStage
    seconds: float
    examples: int
    peak: float
