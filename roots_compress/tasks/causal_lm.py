"""Text generation: each token is predicted from those before it, through a cache of keys and values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.prompts import check_context, check_finite
from roots_compress.runtime.protocol import LanguageModel, Logits, Tokens
from roots_compress.tasks.base import Axes, Task
from roots_compress.tasks.figures.figures import Metric, Workload, counted
from roots_compress.tasks.figures.perplexity import window_predictions, windows_perplexity
from roots_compress.tasks.figures.predictions import Predictions, Scored
from roots_compress.tasks.parity import ParityScript

if TYPE_CHECKING:
    from roots_compress.configs.data import RecordKind
    from roots_compress.configs.evaluate import EvaluationConfig
    from roots_compress.data.documents import Document
    from roots_compress.data.windows import EvaluationWindows, PackedWindows
    from roots_compress.models.heads import RootsWithHead
    from roots_compress.models.ops.base import State
    from roots_compress.models.spec import ModelSpec
    from roots_compress.results import Protocol


class CausalLM(Task[LanguageModel]):
    """Next-token prediction: perplexity, and the speeds of reading a prompt and of decoding after it."""

    name = "causal_lm"
    heads: ClassVar[tuple[str, ...]] = ("ForCausalLM", "LMHeadModel")
    head_kind = "lm"
    optimum_name = "text-generation-with-past"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("perplexity", "perplexity", "lower", logarithm="bits_per_byte"),
        Metric("bits_per_byte", "bits/byte", "lower", digits=4, across_tokenizers=True),
    )
    workloads: ClassVar[tuple[Workload, ...]] = (
        Workload(
            "prefill", "prefill_tokens_per_second", "prefill tok/s", "Reading, tokens a second", "token"
        ),
        Workload("decode", "decode_tokens_per_second", "decode tok/s", "Decoding, tokens a second", "token"),
    )
    writes = True
    tuned_on = "instructions"
    # Nats a token. Rounding averages out over a text, but not over a few tokens.
    agreement = (1e-3, 0.1)

    def for_records(self, kind: RecordKind) -> Task[Any]:
        from roots_compress.tasks.answering import Answering

        return Answering() if kind == Answering.records else super().for_records(kind)

    def inputs(self, spec: ModelSpec) -> Axes:
        """Return tokens, mask and positions, then the cached states of every layer."""
        tokens = {0: "batch_size", 1: "sequence_length"}
        return {
            "input_ids": tokens,
            "attention_mask": {0: "batch_size", 1: "total_sequence_length"},
            "position_ids": tokens,
            **{state.past: _axes(state, "past_sequence_length") for state in spec.states()},
        }

    def outputs(self, spec: ModelSpec) -> Axes:
        """Return the logits, then the cached states of every layer."""
        return {
            # With these inputs only, the logits are of all tokens; optimum reads the axis by this name.
            "logits": {0: "batch_size", 1: "sequence_length"},
            **{state.present: _axes(state, "total_sequence_length") for state in spec.states()},
        }

    def open_graph(
        self, graph: Path, *, threads: int | None = None, provider: Literal["auto", "cpu", "cuda"] = "auto"
    ) -> LanguageModel:
        return OnnxEngine.open(graph, threads=threads, provider=provider)

    def serve_model(self, model: RootsWithHead) -> LanguageModel:
        """Return the checkpoint's own model as an engine."""
        from roots_compress.models.modeling import RootsForCausalLM
        from roots_compress.runtime.torch_engine import TorchEngine

        assert isinstance(model, RootsForCausalLM)
        return TorchEngine(model)

    def require_sound(self, engine: LanguageModel) -> None:
        check_finite(engine.prefill(np.zeros((1, 2), dtype=np.int64)).logits)

    def tokens_read(self, block_size: int) -> int:
        """Return all but the last, which is only scored."""
        return block_size - 1

    def examples(
        self, documents: Sequence[Document], tokenizer: Any, config: EvaluationConfig
    ) -> EvaluationWindows:
        from roots_compress.data.evaluation import evaluation_windows

        return evaluation_windows(documents, tokenizer, block_size=config.block_size, limit=config.windows)

    def predictions(self, engine: LanguageModel, examples: EvaluationWindows) -> Iterator[Predictions]:
        return window_predictions(engine, examples)

    def figures(self, scored: Scored, examples: EvaluationWindows) -> dict[str, float]:
        """Return perplexity, bits per byte, and perplexity by position; see `perplexity`."""
        paid = windows_perplexity(scored, examples)
        parts = {self.metric.from_position(start): value for start, value in paid.by_position.items()}
        return {
            "perplexity": paid.perplexity,
            "bits_per_byte": paid.bits_per_byte,
            **(parts if len(parts) > 1 else {}),
        }

    def continued(
        self,
        engine: LanguageModel,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
    ) -> Iterator[Logits]:
        """Yield the logits of each continuation's tokens after its context, which has at least one token."""
        for continuation in continuations:
            check_context(engine, len(continuation))
        # The last token's prediction is not needed.
        rows = [
            [*context, *continuation[:-1]][-engine.max_context :]
            for context, continuation in zip(contexts, continuations, strict=True)
        ]
        tokens_BT = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
        for number, row in enumerate(rows):
            tokens_BT[number, : len(row)] = row
        # No token sees the padding on its right.
        logits_BTV = engine.logits(tokens_BT)
        for number, (row, continuation) in enumerate(zip(rows, continuations, strict=True)):
            yield logits_BTV[number, len(row) - len(continuation) : len(row)]

    def lengths(self, contexts: Sequence[int], *, decode_tokens: int, longest: int) -> list[int]:
        """Return the lengths that leave room for the tokens decoded after them.

        A length that the model cannot hold becomes its longest; equal lengths are timed once.

        Raises:
            InputError: there is no room for one token of prompt.
        """
        room = longest - decode_tokens
        if room < 1:
            raise InputError(
                f"{decode_tokens} decoded tokens leave no room in a context of {longest}",
                remedy="Decode fewer tokens.",
            )
        return sorted({min(context, room) for context in contexts})

    def run_workloads(
        self, engine: LanguageModel, tokens_1T: Tokens, length: int, decode_tokens: int
    ) -> tuple[tuple[int, float], ...]:
        """Read `length` tokens into an empty cache, then decode single tokens after them."""
        began = time.perf_counter()
        step = engine.prefill(tokens_1T[:, :length])
        filled = time.perf_counter()
        for position in range(length, length + decode_tokens):
            step = engine.decode(tokens_1T[:, position], step.cache)
        return (length, filled - began), (decode_tokens, time.perf_counter() - filled)

    def parity_output(self, engine: LanguageModel, script: ParityScript) -> Logits:
        return engine.logits(script.input_ids, script.mask)

    def parity_runs(self, engine: LanguageModel, script: ParityScript) -> Iterator[tuple[str, Logits, int]]:
        """Run a script without a cache, then through one."""
        yield "whole", self.parity_output(engine, script), 0
        prompt = script.shape.tokens - script.shape.decoded
        step = engine.prefill(script.input_ids[:, :prompt], script.mask[:, :prompt])
        logits = [step.logits]
        for token_ids_B in script.input_ids[:, prompt:].T:
            step = engine.decode(token_ids_B, step.cache)
            logits.append(step.logits)
        yield "prefill and decode", np.stack(logits, axis=1), prompt - 1

    def training_windows(
        self, documents: Sequence[Document], tokenizer: Any, block_size: int, *, seed: int, limit: int | None
    ) -> PackedWindows:
        """Return packed windows whose targets are the next tokens.

        Conversations are packed whole, and only their answers are scored; see `pack_conversations` and
        `pack`.
        """
        if documents and all(document.is_chat for document in documents):
            from roots_compress.data.conversations import pack_conversations

            return pack_conversations(documents, tokenizer, block_size, seed=seed, limit=limit)
        from roots_compress.data.packing import pack

        return pack(documents, tokenizer, block_size, seed=seed, limit=limit)

    def quality_caption(self, protocol: Protocol) -> str:
        """Describe the text for perplexity."""
        opened = "opened with BOS" if protocol.bos else "without BOS"
        return (
            "Perplexity through the ONNX graph: "
            f"{counted(protocol.windows, 'window')} of {protocol.block_size} tokens, "
            f"{opened}, of {protocol.text}."
        )

    def caption(self, protocol: Protocol) -> str:
        return f"{self.quality_caption(protocol)} {self.speed_caption(protocol)}"

    def timed(self, protocol: Protocol) -> tuple[str, str]:
        return "batch 1", "Decode gain: over the baseline, at the longest context."


def _axes(state: State, tokens: str) -> dict[int, str]:
    """Return the dynamic axes of a state; its token axis gets this name."""
    growing = {axis: tokens for axis, size in enumerate(state.shape, start=1) if size is None}
    return {0: "batch_size", **growing}
