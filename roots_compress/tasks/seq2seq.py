"""Engines, speed and parity for tasks of encoder-decoders: sources are read once, targets decoded.

Shape legend: B batch, S tokens of a source, T tokens of a target, V vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from roots_compress.errors import InputError
from roots_compress.runtime.onnx.seq2seq import OnnxSeq2Seq
from roots_compress.runtime.prompts import check_finite
from roots_compress.runtime.protocol import Logits, Seq2SeqModel, Tokens
from roots_compress.tasks.base import Axes, Task
from roots_compress.tasks.figures.figures import Workload
from roots_compress.tasks.parity import ParityScript

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from roots_compress.models.heads import RootsWithHead
    from roots_compress.models.spec import ModelSpec
    from roots_compress.results import Protocol


class Seq2SeqTask(Task[Seq2SeqModel]):
    """A task whose model writes a target for a source: reading the source and decoding are timed."""

    heads: ClassVar[tuple[str, ...]] = ("ForConditionalGeneration", "ForSeq2SeqLM")
    head_kind = "seq2seq_lm"
    optimum_name = "text2text-generation-with-past"
    reads = "source"
    workloads: ClassVar[tuple[Workload, ...]] = (
        Workload("encode", "encode_tokens_per_second", "encode tok/s", "Encoding, tokens a second", "token"),
        Workload("decode", "decode_tokens_per_second", "decode tok/s", "Decoding, tokens a second", "token"),
    )
    writes = True

    def inputs(self, spec: ModelSpec) -> Axes:
        """Return the model's inputs; `seq2seq_graph.py` has those of each of its two graphs."""
        source = {0: "batch_size", 1: "encoder_sequence_length"}
        return {
            "input_ids": source,
            "attention_mask": source,
            "decoder_input_ids": {0: "batch_size", 1: "decoder_sequence_length"},
        }

    def outputs(self, spec: ModelSpec) -> Axes:
        return {"logits": {0: "batch_size", 1: "decoder_sequence_length"}}

    def open_graph(
        self, graph: Path, *, threads: int | None = None, provider: Literal["auto", "cpu", "cuda"] = "auto"
    ) -> Seq2SeqModel:
        return OnnxSeq2Seq.open(graph, threads=threads, provider=provider)

    def serve_model(self, model: RootsWithHead) -> Seq2SeqModel:
        """Return the checkpoint's own model as an engine."""
        from roots_compress.models.seq2seq import RootsForSeq2SeqLM
        from roots_compress.runtime.torch_engine import TorchSeq2Seq

        assert isinstance(model, RootsForSeq2SeqLM)
        return TorchSeq2Seq(model)

    def require_sound(self, engine: Seq2SeqModel) -> None:
        targets = engine.read(np.zeros((1, 2), dtype=np.int64))
        check_finite(targets.prefill(np.full((1, 1), engine.start)).logits)

    def continued(
        self, engine: Seq2SeqModel, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
    ) -> Iterator[Logits]:
        """Yield the logits of each target's tokens, given its source."""
        sources = [context[-engine.max_context :] for context in contexts]
        source_BS = np.zeros((len(sources), max(map(len, sources))), dtype=np.int64)
        mask_BS = np.zeros_like(source_BS)
        target_BT = np.zeros((len(sources), max(map(len, continuations))), dtype=np.int64)
        target_BT[:, 0] = engine.start
        for number, (source, target) in enumerate(zip(sources, continuations, strict=True)):
            source_BS[number, : len(source)], mask_BS[number, : len(source)] = source, 1
            target_BT[number, 1 : len(target)] = target[:-1]
        logits_BTV = engine.read(source_BS, mask_BS).logits(target_BT)
        for number, target in enumerate(continuations):
            yield logits_BTV[number, : len(target)]

    def lengths(self, contexts: Sequence[int], *, decode_tokens: int, longest: int) -> list[int]:
        """Return the lengths of sources, none longer than the model can read.

        Raises:
            InputError: so many tokens cannot be decoded.
        """
        if decode_tokens > longest:
            raise InputError(
                f"{decode_tokens} decoded tokens are more than the model's {longest}",
                remedy="Decode fewer tokens.",
            )
        return sorted({min(context, longest) for context in contexts})

    def run_workloads(
        self, engine: Seq2SeqModel, tokens_1T: Tokens, length: int, decode_tokens: int
    ) -> tuple[tuple[int, float], ...]:
        """Read a source of `length` tokens, then decode a target, from its start token on."""
        began = time.perf_counter()
        targets = engine.read(tokens_1T[:, :length])
        read = time.perf_counter()
        step = targets.prefill(np.full((1, 1), engine.start))
        for place in range(length, length + decode_tokens - 1):
            step = targets.decode(tokens_1T[:, place], step.cache)
        return (length, read - began), (decode_tokens, time.perf_counter() - read)

    def parity_output(self, engine: Seq2SeqModel, script: ParityScript) -> Logits:
        return engine.read(script.input_ids, script.mask).logits(script.inputs["decoder_input_ids"])

    def parity_runs(self, engine: Seq2SeqModel, script: ParityScript) -> Iterator[tuple[str, Logits, int]]:
        """Run a script without caches, then through both."""
        yield "whole", self.parity_output(engine, script), 0
        target_BT = script.inputs["decoder_input_ids"]
        prompt = target_BT.shape[1] - script.shape.decoded
        targets = engine.read(script.input_ids, script.mask)
        step = targets.prefill(target_BT[:, :prompt])
        logits = [step.logits]
        for token_ids_B in target_BT[:, prompt:].T:
            step = targets.decode(token_ids_B, step.cache)
            logits.append(step.logits)
        yield "through both caches", np.stack(logits, axis=1), prompt - 1

    def parity_mask(self, script: ParityScript) -> NDArray[np.bool_]:
        """Return that all outputs count: targets are not padded."""
        return np.ones_like(script.inputs["decoder_input_ids"], dtype=bool)

    def timed(self, protocol: Protocol) -> tuple[str, str]:
        answer = f"{protocol.decode_tokens} tokens that answer the longest source"
        return "batch 1", f"Decode gain: over the baseline, of {answer}."
