"""The graphs of an encoder-decoder behind the `Seq2SeqModel` protocol, served by ONNX Runtime.

The encoder runs once for its sources. The decoder's first step makes the keys and values of the sources, and
later ones read them where ONNX Runtime wrote them. Neither torch nor onnx is imported.

Shape legend: B batch, S tokens of a source, T new tokens, W hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from roots_compress.errors import InputError
from roots_compress.runtime.encoder import check_texts
from roots_compress.runtime.onnx.decoder_graph import ELEMENT_TYPES, KeyValue, check_logits
from roots_compress.runtime.onnx.graph_config import EXPORT_AGAIN, read_config, read_start
from roots_compress.runtime.onnx.seq2seq_graph import (
    BRANCH,
    DECODER_GRAPH,
    ENCODER_GRAPH,
    SOURCE_INPUTS,
    STATES,
    cached_tensors,
)
from roots_compress.runtime.onnx.session import (
    CUDA,
    HALF_ON_CPU,
    Provider,
    open_session,
    run_bound,
    run_session,
)
from roots_compress.runtime.prompts import check_context, check_targets, left_pad
from roots_compress.runtime.protocol import Logits, Step, Tokens


@dataclass(frozen=True)
class Seq2SeqCache:
    """Keys and values in the order of the graph's pasts, and what they are of."""

    keys_values: tuple[Any, ...]
    sources: NDArray[np.int64]
    """The source of each row."""
    tokens: int
    """How many tokens of the target are held."""


class OnnxSeq2Seq:
    """Serves a folder with an encoder's and a decoder's graph. One call at a time, from one thread."""

    continues = False
    """See `Writer.continues`."""

    def __init__(
        self,
        encoder: Any,
        decoder: Any,
        key_values: tuple[KeyValue, ...],
        sizes: tuple[int, int, int],
        graph: Path,
    ) -> None:
        self.encoder, self.decoder, self.key_values, self.graph = encoder, decoder, key_values, graph
        self.vocab_size, self.max_context, self.start = sizes
        self.branches = BRANCH in {value.name for value in decoder.get_inputs()}
        self.device = "cuda" if CUDA in decoder.get_providers() else "cpu"

    @classmethod
    def open(cls, graph: Path, *, threads: int | None = None, provider: Provider = "auto") -> OnnxSeq2Seq:
        """Open a decoder's graph, and the encoder's beside it; `graph_files` has checked their files.

        Raises:
            InputError: one is not a graph of an encoder-decoder, or this machine lacks the provider.
        """
        vocab_size, max_context = read_config(graph)
        encoder, decoder = (
            open_session(path, threads=threads, provider=provider) for path in (encoder_beside(graph), graph)
        )
        key_values = cached_tensors(decoder, graph)
        check_logits(decoder, vocab_size, graph)
        taken, given = (
            {value.name for value in values} for values in (encoder.get_inputs(), encoder.get_outputs())
        )
        if taken != {*SOURCE_INPUTS} or given != {STATES}:
            raise InputError(
                f"the graph's inputs {', '.join(taken)[:200]} and outputs {', '.join(given)[:200]} are not"
                f" those of an encoder before a decoder: {', '.join(SOURCE_INPUTS)}; {STATES}",
                where=encoder_beside(graph),
                remedy=EXPORT_AGAIN,
            )
        return cls(encoder, decoder, key_values, (vocab_size, max_context, read_start(graph)), graph)

    @property
    def caution(self) -> str | None:
        """Why this graph runs slowly where it was opened; None where there is no reason."""
        is_half = any(kv.dtype == np.float16 for kv in self.key_values)
        return HALF_ON_CPU if is_half and self.device == "cpu" else None

    def begin(self, tokens: Sequence[int]) -> tuple[OnnxTargets, list[int]]:
        """Read a source; see `Writer.begin`."""
        input_ids, _mask = left_pad([tokens])
        return self.read(input_ids), [self.start]

    def read(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> OnnxTargets:
        """Run the encoder; see `Seq2SeqModel.read`."""
        check_texts(self, input_ids)
        mask_BS = np.ones_like(input_ids) if attention_mask is None else attention_mask
        feeds = dict(zip(SOURCE_INPUTS, (input_ids, mask_BS), strict=True))
        states_BSW = run_session(self.encoder, STATES, feeds, encoder_beside(self.graph))
        return OnnxTargets(self, states_BSW, mask_BS)


def encoder_beside(graph: Path) -> Path:
    """Return the path of the encoder's graph; that of a decoder without rounding has the same prefix."""
    prefix = graph.name.removesuffix(DECODER_GRAPH) if graph.name.endswith(DECODER_GRAPH) else ""
    return graph.with_name(prefix + ENCODER_GRAPH)


class OnnxTargets:
    """The decoder's graph over sources that were read."""

    renewed_after: int | None = None
    """See `LanguageModel.renewed_after`."""

    def __init__(self, model: OnnxSeq2Seq, states_BSW: NDArray[Any], mask_BS: Tokens) -> None:
        self._model, self._mask_BS = model, np.ascontiguousarray(mask_BS, dtype=np.int64)
        self._states = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(states_BSW), model.device)
        self._binding = model.decoder.io_binding()
        outputs = {output.name: output for output in model.decoder.get_outputs()}
        self._logits_dtype = ELEMENT_TYPES[outputs["logits"].type]
        self.vocab_size, self.max_context = model.vocab_size, model.max_context

    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits of every position, `(B, T, V)`, without a cache."""
        self._check(input_ids, attention_mask)
        return self._run(input_ids, self._empty(), caches=False)[0]

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        """Read a target's first tokens into new caches; return the logits of each row's last token."""
        self._check(input_ids, attention_mask)
        logits_BTV, cache = self._run(input_ids, self._empty())
        return Step(logits_BTV[:, -1], cache)

    def decode(self, token_ids: Tokens, cache: object) -> Step:
        """Append one token per row, `(B,)`; the cache passed in must not be used again."""
        assert isinstance(cache, Seq2SeqCache)
        check_context(self, cache.tokens + 1)
        logits_BTV, cache = self._run(np.asarray(token_ids, dtype=np.int64)[:, None], cache)
        return Step(logits_BTV[:, -1], cache)

    def reordered(self, cache: object, rows: NDArray[np.int64]) -> Seq2SeqCache:
        """Return a cache of other rows; see `BeamModel.reordered`. Those of a source share what is of it."""
        assert isinstance(cache, Seq2SeqCache)
        sources = cache.sources[rows]
        of_source = not np.array_equal(sources, cache.sources)
        own = not np.array_equal(rows, np.arange(len(cache.sources)))

        def chosen(value: Any) -> Any:
            kept = np.ascontiguousarray(value.numpy()[rows])
            return ort.OrtValue.ortvalue_from_numpy(kept, self._model.device)

        moved = tuple(
            chosen(value) if (of_source if kv.of_source else own) else value
            for kv, value in zip(self._model.key_values, cache.keys_values, strict=True)
        )
        return Seq2SeqCache(moved, sources, cache.tokens)

    def _check(self, input_ids: Tokens, attention_mask: Tokens | None) -> None:
        check_targets(self, input_ids, attention_mask, sources=len(self._mask_BS))

    def _empty(self) -> Seq2SeqCache:
        batch = len(self._mask_BS)
        values = tuple(
            ort.OrtValue.ortvalue_from_shape_and_type(
                [batch, kv.heads, 0, kv.width], kv.dtype, self._model.device
            )
            for kv in self._model.key_values
        )
        return Seq2SeqCache(values, np.arange(batch), 0)

    def _run(
        self, input_ids: Tokens, cache: Seq2SeqCache, *, caches: bool = True
    ) -> tuple[Logits, Seq2SeqCache]:
        """Run new tokens `(B, T)`; return their logits, and the extended cache if asked for."""
        binding, key_values = self._binding, self._model.key_values
        binding.clear_binding_outputs()
        binding.bind_cpu_input("input_ids", np.ascontiguousarray(input_ids, dtype=np.int64))
        binding.bind_cpu_input("encoder_attention_mask", np.ascontiguousarray(self._mask_BS[cache.sources]))
        binding.bind_ortvalue_input("encoder_hidden_states", self._states)
        for kv, past in zip(key_values, cache.keys_values, strict=True):
            binding.bind_ortvalue_input(kv.past, past)
        has_cache = np.array([cache.tokens > 0])
        if self._model.branches:
            binding.bind_cpu_input(BRANCH, has_cache)
        logits = np.empty((*input_ids.shape, self.vocab_size), dtype=self._logits_dtype)
        binding.bind_output("logits", "cpu", 0, self._logits_dtype, logits.shape, logits.ctypes.data)
        # What is of the source is returned by the first step alone.
        new = [kv for kv in key_values if caches and not (kv.of_source and cache.tokens)]
        for kv in new:
            binding.bind_output(kv.present, self._model.device)
        run_bound(self._model.decoder, binding, self._model.graph)
        found = dict(zip((kv.present for kv in new), binding.get_outputs()[1:], strict=True))
        kept = tuple(
            found.get(kv.present, past) for kv, past in zip(key_values, cache.keys_values, strict=True)
        )
        widened: Logits = logits.astype(np.float32, copy=False)
        return widened, Seq2SeqCache(kept, cache.sources, cache.tokens + input_ids.shape[1])
