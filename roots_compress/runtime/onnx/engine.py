"""An exported graph behind the `LanguageModel` protocol, served by ONNX Runtime.

Keys and values stay where ONNX Runtime wrote them. A graph that says so in its metadata writes new ones into
the buffer that holds the old: one buffer is bound as past and present, and copied only to grow. Otherwise
each step binds the presents of the step before as its pasts, and ONNX Runtime copies them. Neither torch nor
onnx is imported, so that a process that only serves stays as small as it can be.

Shape legend: B batch, T new tokens, S all tokens (cached and new), V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import DTypeLike, NDArray

from roots_compress.runtime.onnx.decoder_graph import (
    ELEMENT_TYPES,
    KeyValue,
    cached_tensors,
    check_logits,
    other_states,
    token_feeds,
    token_types,
)
from roots_compress.runtime.onnx.graph_config import read_config, renewed_after
from roots_compress.runtime.onnx.session import (
    CUDA,
    HALF_ON_CPU,
    LOGITS_TO_KEEP,
    PREFILL_PIECE,
    SHARED_CACHE,
    Provider,
    open_session,
    run_bound,
    settings_of,
)
from roots_compress.runtime.prompts import check_context, check_prompt
from roots_compress.runtime.protocol import Logits, Step, Tokens

# A cache that must grow gets half as many slots again, and never fewer spare ones than this.
LEAST_SPARE_SLOTS = 64
# A prompt is read in pieces of so many tokens. A piece attends to itself and to what came before it: products
# with what lies after are not even computed, and the memory of one piece is enough. See docs/figures/
# performance.md for the speeds.
PREFILL_CHUNK = 128


@dataclass(frozen=True)
class OnnxCache:
    """Keys and values, in the order of the graph's pasts, and the mask `(B, S)` of what they hold.

    Buffers that past and present share have room for more than S.
    """

    keys_values: tuple[Any, ...]
    attention_mask: Tokens
    states: tuple[Any, ...] = ()
    """What else is kept: states of convolutions, and mean keys of complete blocks of block-sparse layers."""


class OnnxEngine:
    """Serves a graph folder. One call at a time: an engine is not to be shared between threads."""

    continues = True
    """See `Writer.continues`."""

    def __init__(
        self,
        session: Any,
        key_values: tuple[KeyValue, ...],
        vocab_size: int,
        max_context: int,
        prefill_chunk: int,
        graph: Path,
        renewed_after: int | None = None,
    ) -> None:
        self._session, self._graph = session, graph
        self.renewed_after = renewed_after
        """See `LanguageModel.renewed_after`."""
        self._key_values = key_values
        self.vocab_size, self.max_context = vocab_size, max_context
        self._prefill_chunk = prefill_chunk
        outputs = {output.name: output for output in session.get_outputs()}
        self._logits_dtype = ELEMENT_TYPES[outputs["logits"].type]
        self._device = "cuda" if CUDA in session.get_providers() else "cpu"
        optional = [value.name for value in session.get_overridable_initializers()]
        self._asks_for_last = LOGITS_TO_KEEP in optional
        self._states = other_states(session)
        self._token_types = token_types(session)
        self._binding = session.io_binding()
        self._bound_buffers: tuple[Any, ...] | None = None
        self._shares_cache = SHARED_CACHE in session.get_modelmeta().custom_metadata_map

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None, provider: Provider = "auto") -> OnnxEngine:
        """Check a graph's files, then open it.

        Args:
            folder: an export folder, or a run's stage folder with the export in `onnx/`.
            threads: threads within an operator; None for as many as `default_threads` counts.
            provider: where to run; `auto` takes a CUDA device where there is one.

        Raises:
            InputError: a file is missing, truncated or outside the folder, the graph is not a language model
                with a KV cache in this project's form, or this machine lacks the provider.
        """
        # Imported here: the check parses with `onnx`, which a process that only serves does not need.
        from roots_compress.runtime.onnx.graph_folder import graph_files

        graph, *_data = graph_files(folder)
        return cls.open(graph, threads=threads, provider=provider)

    @classmethod
    def open(
        cls,
        graph: Path,
        *,
        threads: int | None = None,
        provider: Provider = "auto",
        prefill_chunk: int | None = None,
        spinning: bool = False,
    ) -> OnnxEngine:
        """Open a graph whose files have been checked by `graph_files`; otherwise as `load`.

        A single prompt is read `prefill_chunk` tokens at a time, where the graph allows it; by default as
        many as the graph says. `spinning` lets threads spin between steps, for a process that does nothing
        else on a machine of its own.
        """
        vocab_size, max_context = read_config(graph)
        session = open_session(graph, threads=threads, provider=provider, spinning=spinning)
        key_values = cached_tensors(session, graph)
        check_logits(session, vocab_size, graph)
        if prefill_chunk is None:
            metadata = session.get_modelmeta().custom_metadata_map
            prefill_chunk = int(metadata.get(PREFILL_PIECE, PREFILL_CHUNK))
        renewed = renewed_after(graph)
        return cls(session, key_values, vocab_size, max_context, prefill_chunk, graph, renewed)

    @property
    def settings(self) -> dict[str, str]:
        """What the session was told beyond ONNX Runtime's defaults and the number of threads."""
        return settings_of(self._session)

    @property
    def providers(self) -> tuple[str, ...]:
        """ONNX Runtime's providers that serve the graph, the preferred one first."""
        return tuple(self._session.get_providers())

    @property
    def caution(self) -> str | None:
        """Why this graph runs slowly where it was opened; None where there is no reason."""
        if self._device == "cpu" and any(kv.dtype == np.float16 for kv in self._key_values):
            return HALF_ON_CPU
        return None

    def begin(self, tokens: Sequence[int]) -> tuple[OnnxEngine, list[int]]:
        """Return itself and the prompt; see `Writer.begin`."""
        return self, list(tokens)

    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits of every position, `(B, T, V)`, without a cache."""
        check_prompt(self, input_ids, attention_mask)
        cache = self._empty_cache(len(input_ids))
        buffer = np.empty((*input_ids.shape, self.vocab_size), dtype=self._logits_dtype)
        self._run(input_ids, _mask(input_ids, attention_mask), cache, buffer)
        return buffer.astype(np.float32, copy=False)

    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        """Read a prompt into a new cache; return the logits of each row's last token."""
        check_prompt(self, input_ids, attention_mask)
        batch, tokens = input_ids.shape
        mask, cache = _mask(input_ids, attention_mask), self._empty_cache(batch)
        chunk = tokens
        if self._shares_cache:
            cache = self._with_room(cache, tokens)
            # The fused operator takes several new tokens after a past in a batch of one only. Of a long text
            # in pieces, the first would be turned as a short text is.
            if batch == 1 and (self.renewed_after is None or tokens <= self.renewed_after):
                chunk = self._prefill_chunk
        for start in range(0, tokens, chunk):
            end = min(start + chunk, tokens)
            # A graph that others made may give the logits of every position only.
            kept = 1 if self._asks_for_last else end - start
            buffer = np.empty((batch, kept, self.vocab_size), dtype=self._logits_dtype)
            cache = self._run(input_ids[:, start:end], mask[:, :end], cache, buffer)
        return Step(buffer[:, -1].astype(np.float32), cache)

    def decode(self, token_ids: Tokens, cache: object) -> Step:
        """Append one token per row, `(B,)`; the cache passed in must not be used again."""
        assert isinstance(cache, OnnxCache)
        check_context(self, cache.attention_mask.shape[1] + 1)
        input_ids = np.asarray(token_ids, dtype=np.int64)[:, None]
        mask = np.concatenate((cache.attention_mask, np.ones_like(input_ids)), axis=1)
        buffer = np.empty((len(input_ids), 1, self.vocab_size), dtype=self._logits_dtype)
        cache = self._run(input_ids, mask, cache, buffer)
        return Step(buffer[:, -1].astype(np.float32, copy=False), cache)

    def reordered(self, cache: object, rows: NDArray[np.int64]) -> OnnxCache:
        """Return a cache of other rows; see `BeamModel.reordered`."""
        assert isinstance(cache, OnnxCache)
        if np.array_equal(rows, np.arange(len(cache.attention_mask))):
            return cache
        moved, states = (
            tuple(
                ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value.numpy()[rows]), self._device)
                for value in values
            )
            for values in (cache.keys_values, cache.states)
        )
        return OnnxCache(moved, cache.attention_mask[rows], states)

    def _empty_cache(self, batch: int) -> OnnxCache:
        shapes: list[tuple[tuple[int, ...], DTypeLike]] = [
            ((kv.heads, 0, kv.width), kv.dtype) for kv in self._key_values
        ]
        shapes += [(state.shape, state.dtype) for state in self._states]
        values = tuple(
            ort.OrtValue.ortvalue_from_numpy(np.zeros((batch, *shape), dtype=dtype), self._device)
            for shape, dtype in shapes
        )
        count = len(self._key_values)
        return OnnxCache(values[:count], np.empty((batch, 0), dtype=np.int64), values[count:])

    def _run(
        self, input_ids: Tokens, mask: Tokens, cache: OnnxCache, logits: np.ndarray[Any, Any]
    ) -> OnnxCache:
        """Run new tokens `(B, T)` under the mask `(B, S)`; write `logits` and return the extended cache.

        `logits` is `(B, K, V)`; where K is less than T, the graph computes no more than the newest K.
        """
        binding, feeds = self._binding, token_feeds(self._token_types, input_ids, mask, self._graph)
        for name, value in feeds.items():
            binding.bind_cpu_input(name, value)
        if self._asks_for_last:
            # Only a bound value reaches an input that has a default; `bind_cpu_input` does not find it.
            kept = np.array(logits.shape[1])
            binding.bind_ortvalue_input(LOGITS_TO_KEEP, ort.OrtValue.ortvalue_from_numpy(kept))
        binding.bind_output("logits", "cpu", 0, self._logits_dtype, logits.shape, logits.ctypes.data)
        buffers = self._bind_keys_values(mask, cache)
        # Bound after all others, and so the last of the outputs.
        for state, past in zip(self._states, cache.states, strict=True):
            binding.bind_ortvalue_input(state.past, past)
            binding.bind_output(state.present, self._device)
        run_bound(self._session, binding, self._graph)
        if buffers is not None and not self._states:
            return OnnxCache(buffers, mask)  # To wrap every output takes as long as half a layer.
        outputs, count = binding.get_outputs()[1:], len(self._key_values)
        return OnnxCache(buffers or tuple(outputs[:count]), mask, tuple(outputs[count:]))

    def _bind_keys_values(self, mask: Tokens, cache: OnnxCache) -> tuple[Any, ...] | None:
        """Bind keys and values as inputs and outputs; return the buffers that are both, if they are."""
        if not self._shares_cache:
            for kv, past in zip(self._key_values, cache.keys_values, strict=True):
                self._binding.bind_ortvalue_input(kv.past, past)
                self._binding.bind_output(kv.present, self._device)
            return None
        buffers = self._with_room(cache, mask.shape[1]).keys_values
        if buffers is not self._bound_buffers:
            for kv, buffer in zip(self._key_values, buffers, strict=True):
                self._binding.bind_ortvalue_input(kv.past, buffer)
                self._binding.bind_ortvalue_output(kv.present, buffer)
            self._bound_buffers = buffers
        return buffers

    def _with_room(self, cache: OnnxCache, slots: int) -> OnnxCache:
        """Return the cache, in longer copies of its buffers where they are too short for so many slots.

        The fused operators that write in place are the CPU's, and so is the memory.
        """
        held = cache.attention_mask.shape[1]
        # Buffers are made and grow together; a model of other states alone has none.
        if all(value.shape()[2] >= slots for value in cache.keys_values[:1]):
            return cache
        capacity = min(slots + max(slots // 2, LEAST_SPARE_SLOTS), self.max_context)
        grown = []
        for kv, value in zip(self._key_values, cache.keys_values, strict=True):
            # Zeros take no memory before they are written.
            buffer = np.zeros((value.shape()[0], kv.heads, capacity, kv.width), dtype=kv.dtype)
            if held:
                buffer[:, :, :held] = value.numpy()[:, :, :held]
            grown.append(ort.OrtValue.ortvalue_from_numpy(buffer))
        return OnnxCache(tuple(grown), cache.attention_mask, cache.states)


def _mask(input_ids: Tokens, attention_mask: Tokens | None) -> Tokens:
    if attention_mask is None:
        return np.ones(input_ids.shape, dtype=np.int64)
    return np.ascontiguousarray(attention_mask, dtype=np.int64)
