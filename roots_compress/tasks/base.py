"""The interface of tasks: everything that depends on a model's purpose.

Export, evaluation, training, gates, search and reports use a `Task`, and name none. Its module imports no
library above numpy until a method needs one: measuring processes import it, and their memory is measured.

Shape legend: B batch, T tokens, N windows.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from roots_compress.errors import InputError, recipe_key
from roots_compress.runtime.protocol import Served
from roots_compress.tasks.facts import TaskFacts
from roots_compress.tasks.figures.predictions import Measured, Predictions, Scored, Scores, score, score_both
from roots_compress.tasks.parity import ParityScript, ParityShape

if TYPE_CHECKING:
    from roots_compress import results
    from roots_compress.configs.data import RecordKind
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.configs.train import ObjectiveConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.models.heads import RootsWithHead
    from roots_compress.models.spec import ModelSpec
    from roots_compress.progress import Progress
    from roots_compress.training.objective import Objective

Axes = dict[str, dict[int, str]]
"""Names of inputs or outputs in the graph's order, each with the names of its dynamic axes."""
Outputs = NDArray[np.float32]
SHORTEST_ROW = 7
"""Tokens of the shortest row compared."""


Engine = TypeVar("Engine", bound=Served)


class Task(TaskFacts, ABC, Generic[Engine]):
    """What a model is for.

    `Engine` runs the task's models in any runtime: a graph, or a checkpoint's own model.
    """

    def for_records(self, kind: RecordKind) -> Task[Any]:
        """Return the task of the same models for records of another kind.

        Raises:
            InputError: the models cannot use them.
        """
        if kind != self.records:
            raise InputError(
                f"reads records of {kind}, but models for {self.name} read {self.records}",
                where=recipe_key("data", "records"),
                remedy="Leave it out, or name a model that reads them.",
            )
        return self

    # The graph.

    @abstractmethod
    def inputs(self, spec: ModelSpec) -> Axes:
        """Return the inputs of a model's graph in optimum's names, caches included."""

    @abstractmethod
    def outputs(self, spec: ModelSpec) -> Axes:
        """Return the outputs of a model's graph in optimum's names, caches included."""

    # Engines.

    @abstractmethod
    def open_graph(
        self, graph: Path, *, threads: int | None = None, provider: Literal["auto", "cpu", "cuda"] = "auto"
    ) -> Engine:
        """Open a graph whose files have been checked by `graph_files`.

        Raises:
            InputError: it is not a graph of this task, or this machine lacks the provider.
        """

    @abstractmethod
    def serve_model(self, model: RootsWithHead) -> Engine:
        """Return the engine that runs a checkpoint's own model."""

    @abstractmethod
    def require_sound(self, engine: Engine) -> None:
        """Run the model once.

        Raises:
            StageError: an output is not finite.
        """

    # Quality.

    def tokens_read(self, block_size: int) -> int:
        """Return the tokens that a model reads of an example of `block_size` tokens."""
        return block_size

    def labels(self, spec: Callable[[], ModelSpec]) -> tuple[str, ...]:
        """Return the names of the texts' labels, from the models' specification, if any."""
        return ()

    @abstractmethod
    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        """Return the examples for measuring quality, from held-out text; a subclass holds labels.

        Raises:
            InputError: the text is too short.
        """

    def check_examples(self, examples: EvaluationWindows) -> None:
        """Check that examples suffice to measure quality; not called for the few of a forecast.

        Raises:
            InputError: they cannot.
        """

    def predictions(self, engine: Engine, examples: EvaluationWindows) -> Iterator[Predictions]:
        """Yield a model's predictions at the scored positions, some examples at a time, in order.

        Raises:
            InputError: the examples do not fit the model.
        """
        raise NotImplementedError

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        """Return the value of each metric, in order, for a model that `predicts`.

        Raises:
            StageError: a figure is not finite.
        """
        raise NotImplementedError

    def scores(self, scored: Scored) -> Scores:
        """Return the data of the first metric by example: the nats of its positions."""
        return Scores.by_example(scored.nats, scored.examples)

    def of_mean(self, mean: float) -> float:
        """Return the first metric from a mean over all positions: the inverse of its logarithm."""
        return math.exp(mean) if self.metric.relative else mean

    def measure(
        self,
        engine: Engine,
        examples: EvaluationWindows,
        *,
        original: Engine | None = None,
        progress: Progress | None = None,
    ) -> Measured:
        """Measure quality and, with another model, agreement: both read the examples in lockstep.

        Args:
            original: the run's first model, with the same tokenizer, whose figures are measured too.
            progress: called with the examples done and their number.

        Raises:
            InputError: the examples do not fit the model.
            StageError: a figure is not finite.
        """
        parts, count = self.predictions(engine, examples), len(examples.input_ids)
        if original is None:
            scored = score(parts, count=count, progress=progress)
            return Measured(self.figures(scored, examples), self.scores(scored))
        others = self.predictions(original, examples)
        scored, other, agreement = score_both(parts, others, count=count, progress=progress)
        return Measured(
            {**self.figures(scored, examples), **agreement.figures()},
            self.scores(scored),
            Scores.by_example(agreement.divergence, scored.examples),
            self.figures(other, examples),
        )

    def quality(
        self, engine: Engine, examples: EvaluationWindows, *, progress: Progress | None = None
    ) -> dict[str, float]:
        """Return the value of each metric of one model, in order; see `measure`."""
        return self.measure(engine, examples, progress=progress).figures

    def written_quality(self, engine: Engine, examples: EvaluationWindows) -> dict[str, float]:
        """Return the values of optional metrics on written text, which only graphs are measured by."""
        return {}

    def continued(
        self, engine: Engine, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> Iterator[NDArray[np.float32]]:
        """Yield the logits, `(T, V)`, of each continuation's T tokens after its context; the model `writes`.

        A context that does not fit loses its beginning.

        Raises:
            InputError: a continuation does not fit the model.
        """
        raise NotImplementedError

    # Speed and memory.

    @abstractmethod
    def lengths(self, contexts: Sequence[int], *, decode_tokens: int, longest: int) -> list[int]:
        """Return the lengths to time, ascending; none longer than a model of `longest` tokens can hold.

        Raises:
            InputError: there is none.
        """

    @abstractmethod
    def run_workloads(
        self, engine: Engine, tokens_1T: NDArray[np.int64], length: int, decode_tokens: int
    ) -> tuple[tuple[int, float], ...]:
        """Run each workload once at a length; return its number of units and its seconds.

        Args:
            tokens_1T: token ids, at least `length` and `decode_tokens` together.
            decode_tokens: tokens to decode, if the task decodes.
        """

    # Parity.

    def parity_shapes(self, longest: int) -> tuple[ParityShape, ...]:
        """Return the comparisons for a model with this context: one token, one row, and a ragged batch."""
        longest = min(self.longest_row, longest)
        decoded, shortest = min(self.decoded, longest - 1), min(SHORTEST_ROW, longest)
        return (
            ParityShape("one token", 1, 1 + decoded, 1 + decoded, decoded),
            ParityShape("one row", 1, longest, longest, decoded),
            ParityShape("ragged batch", 3, longest, shortest, decoded),
        )

    @abstractmethod
    def parity_output(self, engine: Engine, script: ParityScript) -> Outputs:
        """Return the outputs to compare, `(B, P, ...)`: P is T, or 1 if rows are pooled."""

    @abstractmethod
    def parity_runs(self, engine: Engine, script: ParityScript) -> Iterator[tuple[str, Outputs, int]]:
        """Yield each way to run a script: its name, its outputs, and the first position they belong to."""

    def parity_mask(self, script: ParityScript) -> NDArray[np.bool_]:
        """Return which outputs count, `(B, P)`: all except padding."""
        return script.mask.astype(bool)

    # Training.

    @abstractmethod
    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        """Return windows to learn from, and to calibrate on.

        Raises:
            InputError: the text is too short.
        """

    def objective(self) -> Objective:
        """Return the objective of plain training: cross-entropy with the windows' targets.

        Raises:
            InputError: there are no targets.
        """
        from roots_compress.training.objective import CrossEntropy

        return CrossEntropy()

    def pretraining(
        self,
        config: ObjectiveConfig,
        spec: ModelSpec,
        documents: Sequence[Document],
        tokenizer: Any,
        block_size: int,
        *,
        seed: int,
        limit: int | None,
    ) -> tuple[PackedWindows, Objective]:
        """Return the windows and the objective of pre-training, if settings name several losses.

        Raises:
            InputError: the text is too short, or the model cannot be trained in this way.
        """
        raise NotImplementedError

    # Reports.

    @abstractmethod
    def caption(self, protocol: results.Protocol) -> str:
        """Say how the figures were made."""
