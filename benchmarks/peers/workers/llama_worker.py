"""llama.cpp through the C functions that llama-cpp-python binds, flash attention on, cache in float16."""

from __future__ import annotations

import ctypes

import llama_cpp
import numpy as np
from serving import Logits, serve

FLASH_ATTENTION_ON = 1


class LlamaEngine:
    """A GGUF file; the cache has `room` slots."""

    def __init__(self, path: str, threads: int, room: int) -> None:
        self.settings = {"flash_attn": "on", "cache": "float16"}
        llama_cpp.llama_backend_init()
        self._model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self._model:
            raise ValueError(f"llama.cpp cannot load {path}")
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = parameters.n_batch = room
        parameters.n_threads = parameters.n_threads_batch = threads
        parameters.flash_attn_type = FLASH_ATTENTION_ON
        self._context = llama_cpp.llama_init_from_model(self._model, parameters)
        if not self._context:
            raise ValueError(f"llama.cpp cannot make a context of {room} tokens for {path}")
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))

    def prefill(self, tokens: list[int]) -> None:
        """See `serving.Engine`, as for the other methods."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        self._read(tokens)

    def decode(self, token: int) -> None:
        self._read([token])

    def last_logits(self) -> Logits:
        return self._logits_at(-1)

    def all_logits(self, tokens: list[int]) -> Logits:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place], batch.pos[place], batch.logits[place] = token, place, True
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, 0
        self._decode(batch)
        rows = [self._logits_at(place) for place in range(len(tokens))]
        llama_cpp.llama_batch_free(batch)
        return np.stack(rows)

    def _read(self, tokens: list[int]) -> None:
        self._tokens = (ctypes.c_int32 * len(tokens))(*tokens)  # The batch points into it.
        self._decode(llama_cpp.llama_batch_get_one(self._tokens, len(tokens)))

    def _decode(self, batch: llama_cpp.llama_batch) -> None:
        if code := llama_cpp.llama_decode(self._context, batch):
            raise RuntimeError(f"llama_decode returned {code}")

    def _logits_at(self, place: int) -> Logits:
        pointer = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(pointer, shape=(self._vocab_size,)).copy()


if __name__ == "__main__":
    serve(lambda request: LlamaEngine(request["path"], request["threads"], request["room"]))
