"""A checkpoint's own model behind the `LanguageModel` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache

from roots_compress.models.caches import empty_cache
from roots_compress.models.limits import longrope_length
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.runtime.prompts import check_context, check_prompt
from roots_compress.runtime.protocol import Logits, Step, Tokens


@dataclass(frozen=True)
class TorchCache:
    """Keys and values, and the mask `(B, S)` of what they hold; no mask where nothing is padded."""

    keys_values: Cache
    attention_mask: Tensor | None


class TorchEngine:
    """Serves a model in evaluation mode, on the device and in the dtype it has; logits are float32."""

    continues = True
    """See `Writer.continues`."""

    def __init__(self, model: RootsForCausalLM) -> None:
        self._model = model.eval()
        self.vocab_size = model.config.vocab_size
        self.max_context = model.config.max_position_embeddings

    @property
    def renewed_after(self) -> int | None:
        """See `LanguageModel.renewed_after`."""
        return longrope_length(self._model.config.spec)

    def begin(self, tokens: Sequence[int]) -> tuple[TorchEngine, list[int]]:
        """Return itself and the prompt; see `Writer.begin`."""
        return self, list(tokens)

    @torch.inference_mode()
    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits of every position, `(B, T, V)`, without a cache."""
        check_prompt(self, input_ids, attention_mask)
        output = self._model(self._tensor(input_ids), self._mask(attention_mask), use_cache=False)
        return _to_numpy(output.logits)

    @torch.inference_mode()
    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        """Read a prompt into a new cache; return the logits of each row's last token."""
        check_prompt(self, input_ids, attention_mask)
        cache = TorchCache(empty_cache(self._model.config.spec), self._mask(attention_mask))
        return self._step(self._tensor(input_ids), cache)

    @torch.inference_mode()
    def decode(self, token_ids: Tokens, cache: object) -> Step:
        """Append one token per row, `(B,)`; the cache passed in must not be used again."""
        assert isinstance(cache, TorchCache)
        check_context(self, cache.keys_values.get_seq_length() + 1)
        mask = cache.attention_mask
        if mask is not None:
            mask = torch.cat((mask, mask.new_ones((mask.shape[0], 1))), dim=1)
        return self._step(self._tensor(token_ids)[:, None], TorchCache(cache.keys_values, mask))

    @torch.inference_mode()
    def reordered(self, cache: object, rows: NDArray[np.int64]) -> TorchCache:
        """Return a cache of other rows; see `BeamModel.reordered`."""
        assert isinstance(cache, TorchCache)
        row_N: Any = self._tensor(rows)  # transformers asks for a type that no function returns.
        cache.keys_values.reorder_cache(row_N)
        mask = cache.attention_mask
        return TorchCache(cache.keys_values, None if mask is None else mask[row_N])

    def _step(self, input_ids: Tensor, cache: TorchCache) -> Step:
        output = self._model(
            input_ids,
            cache.attention_mask,
            past_key_values=cache.keys_values,
            use_cache=True,
            logits_to_keep=1,
        )
        return Step(_to_numpy(output.logits[:, -1]), cache)

    def _tensor(self, values: Tokens) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self._model.device)

    def _mask(self, attention_mask: Tokens | None) -> Tensor | None:
        return None if attention_mask is None else self._tensor(attention_mask)


def _to_numpy(logits: Tensor) -> Logits:
    array: Logits = logits.float().cpu().numpy()
    return array
