"""The common part of tasks whose models read a whole text at once.

Shape legend: B batch, T tokens, N texts.
"""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from roots_compress.errors import InputError
from roots_compress.runtime.encoder import Encoder, OnnxEncoder, encoder_inputs
from roots_compress.runtime.prompts import check_finite
from roots_compress.runtime.protocol import Tokens
from roots_compress.tasks.base import Axes, Outputs, Task
from roots_compress.tasks.figures.figures import Workload
from roots_compress.tasks.figures.predictions import Measured, Scored, Scores
from roots_compress.tasks.parity import ParityScript

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roots_compress.data.texts import EvaluationTexts
    from roots_compress.data.windows import EvaluationWindows
    from roots_compress.models.heads import RootsWithHead
    from roots_compress.models.spec import ModelSpec
    from roots_compress.progress import Progress
    from roots_compress.results import Protocol

BATCH = 8
"""Texts that are read together when quality is measured, and in the batch workload."""
TOGETHER = Workload(
    "encode_batch",
    "encode_batch_tokens_per_second",
    f"{BATCH} texts tok/s",
    f"Encoding {BATCH} texts at once, tokens a second",
    "token",
)
ALONE = Workload("encode", "encode_tokens_per_second", "encode tok/s", "Encoding, tokens a second", "token")
BY_TOKEN = {0: "batch_size", 1: "sequence_length"}
"""Axes of tensors with an entry for each token."""


class EncoderTask(Task[Encoder]):
    """A task whose model reads a text once: one output is served, and the reading is timed."""

    output: ClassVar[str] = "logits"
    """The graph's output for quality and parity."""
    by_token: ClassVar[bool] = False
    """Whether that output has a row for each token, `(B, T, ...)`, or one for each text, `(B, ...)`."""
    workloads: ClassVar[tuple[Workload, ...]] = (TOGETHER, ALONE)
    reads = "text"
    # More tokens than one of ModernBERT's windows.
    longest_row, decoded = 80, 0

    def inputs(self, spec: ModelSpec) -> Axes:
        return encoder_inputs(spec)

    def outputs(self, spec: ModelSpec) -> Axes:
        return {self.output: BY_TOKEN if self.by_token else {0: "batch_size"}}

    def open_graph(
        self, graph: Path, *, threads: int | None = None, provider: Literal["auto", "cpu", "cuda"] = "auto"
    ) -> Encoder:
        return OnnxEncoder.open(graph, self.output, threads=threads, provider=provider)

    def serve_model(self, model: RootsWithHead) -> Encoder:
        from roots_compress.runtime.torch_engine import TorchEncoder

        return TorchEncoder(model)

    def require_sound(self, engine: Encoder) -> None:
        check_finite(engine.encode(np.zeros((1, 2), dtype=np.int64)))

    def lengths(self, contexts: Sequence[int], *, decode_tokens: int, longest: int) -> list[int]:
        """Return the lengths, none longer than the model can read; nothing is decoded."""
        return sorted({min(context, longest) for context in contexts})

    def run_workloads(
        self, engine: Encoder, tokens_1T: Tokens, length: int, decode_tokens: int
    ) -> tuple[tuple[int, float], ...]:
        """Read texts of `length` tokens: several at once, or one."""
        done = []
        for workload in self.workloads:
            rows = BATCH if workload is TOGETHER else 1
            tokens_BT = np.repeat(tokens_1T[:, :length], rows, axis=0)
            began = time.perf_counter()
            engine.encode(tokens_BT)
            done.append((rows * length, time.perf_counter() - began))
        return tuple(done)

    def parity_output(self, engine: Encoder, script: ParityScript) -> Outputs:
        found = engine.encode(script.input_ids, script.mask, script.inputs.get("token_type_ids"))
        return found if self.by_token else found[:, None]

    def parity_runs(self, engine: Encoder, script: ParityScript) -> Iterator[tuple[str, Outputs, int]]:
        """Run a script in the only way."""
        yield "whole", self.parity_output(engine, script), 0

    def parity_mask(self, script: ParityScript) -> NDArray[np.bool_]:
        """Return which rows count: those of tokens, or all texts."""
        return super().parity_mask(script) if self.by_token else np.ones((script.shape.batch, 1), dtype=bool)

    def timed(self, protocol: Protocol) -> tuple[str, str]:
        batches = f"one text, and {BATCH} at once" if TOGETHER in self.workloads else "one text"
        return batches, "Encode gain: over the baseline, for one text of the greatest length."


class LabelTask(EncoderTask):
    """A task whose models give labels, to texts or to their words."""

    # Shares: a text with two nearly equal labels may get either.
    agreement = (0.02, 0.1)

    def labels(self, spec: Callable[[], ModelSpec]) -> tuple[str, ...]:
        """Return the names of the model's labels."""
        from roots_compress.models.ops.heads import LabelHead

        head = spec().head
        assert isinstance(head, LabelHead)
        return head.label_names

    def scores(self, scored: Scored) -> Scores:
        return Scores.by_example(scored.given == scored.targets, scored.examples)


class LikenessTask(EncoderTask):
    """A task whose quality is similarity, to the run's first model if it `compares`. W numbers of a text."""

    predicts = False
    compares = True
    # Tolerance of a cosine, and of R2.
    agreement = (1e-4, 0.05)
    given: ClassVar[str]
    """The models' outputs, as a plural noun."""

    @abstractmethod
    def likeness(
        self,
        given_NW: Outputs,
        original_NW: Outputs,
        examples: EvaluationWindows,
        spec: Callable[[], ModelSpec],
    ) -> tuple[dict[str, float], NDArray[np.float64]]:
        """Return the metrics of the texts' outputs, and each text's part of the first metric, `N`.

        Args:
            original_NW: the first model's outputs, or the same model's without a comparison.
            spec: returns the model's specification.
        """

    def measure(
        self,
        engine: Encoder,
        examples: EvaluationWindows,
        *,
        original: Encoder | None = None,
        progress: Progress | None = None,
    ) -> Measured:
        """Compare the outputs of the model and the original one; see `Task.measure`.

        Raises:
            InputError: the original model is not known, or a text does not fit the model.
            StageError: an output is not finite.
        """
        texts = texts_of(examples)
        if original is None and self.compares:
            by_data = f" Or judge it by the data, with --records {self.tuned_on}." if self.tuned_on else ""
            raise InputError(
                f"the quality of {self.given} is their likeness to the original model's, which is not known "
                "of a model by itself",
                remedy="Measure it within a run: `roots-compress quantize` and the other stages report it."
                + by_data,
            )
        given_NW = np.concatenate(list(encoded(engine, texts, progress)))
        check_finite(given_NW)
        original_NW, other = given_NW, dict[str, float]()
        if original is not None:
            original_NW = np.concatenate(list(encoded(original, texts)))
            other, _ = self.likeness(original_NW, original_NW, examples, original.spec)
        figures, parts_N = self.likeness(given_NW, original_NW, examples, engine.spec)
        return Measured(figures, Scores(parts_N, np.ones(len(parts_N), dtype=np.int64)), other=other)


def texts_of(examples: EvaluationWindows) -> EvaluationTexts:
    """Return examples, typed as texts."""
    from roots_compress.data.texts import EvaluationTexts

    assert isinstance(examples, EvaluationTexts)
    return examples


def encoded(engine: Encoder, texts: EvaluationTexts, progress: Progress | None = None) -> Iterator[Outputs]:
    """Yield a model's outputs for texts, some rows at a time, cut to the longest row's tokens.

    Args:
        texts: rows padded on the right.
        progress: called with the texts read and their number.
    """
    mask_NT = texts.mask
    for start in range(0, len(mask_NT), BATCH):
        mask_BT = mask_NT[start : start + BATCH]
        read = np.s_[start : start + BATCH, : int(mask_BT.sum(axis=1).max())]
        types_BT = None if texts.token_types is None else texts.token_types[read]
        yield engine.encode(texts.input_ids[read], mask_NT[read], types_BT)
        if progress is not None:
            progress(start + len(mask_BT), len(mask_NT))
