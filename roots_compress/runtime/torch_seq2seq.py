"""A checkpoint's own encoder-decoder behind the `Seq2SeqModel` protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.runtime.encoder import check_texts
from roots_compress.runtime.prompts import check_context, check_targets, left_pad
from roots_compress.runtime.protocol import Logits, Step, Tokens


@dataclass(frozen=True)
class TorchSeq2SeqCache:
    """Keys and values of targets and sources, and the source of each row."""

    keys_values: EncoderDecoderCache
    sources: Tensor


class TorchSeq2Seq:
    """Serves a model in evaluation mode, on the device and in the dtype it has; logits are float32."""

    continues = False
    """See `Writer.continues`."""

    def __init__(self, model: RootsForSeq2SeqLM) -> None:
        self.model = model.eval()
        self.vocab_size = model.config.vocab_size
        self.max_context = model.config.max_position_embeddings
        self.start = model.head.start

    def begin(self, tokens: Sequence[int]) -> tuple[TorchTargets, list[int]]:
        """Read a source; see `Writer.begin`."""
        input_ids, _mask = left_pad([tokens])
        return self.read(input_ids), [self.start]

    @torch.inference_mode()
    def read(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> TorchTargets:
        """Run the encoder; see `Seq2SeqModel.read`."""
        check_texts(self, input_ids)
        mask_BS = None if attention_mask is None else self.tensor(attention_mask)
        return TorchTargets(self, self.model.encode(self.tensor(input_ids), mask_BS), mask_BS)

    def tensor(self, values: NDArray[np.int64]) -> Tensor:
        """Return numbers on the model's device."""
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self.model.device)


class TorchTargets:
    """The decoder over sources that were read."""

    renewed_after: int | None = None
    """See `LanguageModel.renewed_after`."""

    def __init__(self, engine: TorchSeq2Seq, states_BSW: Tensor, mask_BS: Tensor | None) -> None:
        self._engine, self._states_BSW, self._mask_BS = engine, states_BSW, mask_BS
        self.vocab_size, self.max_context = engine.vocab_size, engine.max_context

    @torch.inference_mode()
    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits of every position, `(B, T, V)`, without a cache."""
        self._check(input_ids, attention_mask)
        return self._run(self._engine.tensor(input_ids), None)

    @torch.inference_mode()
    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        """Read a target's first tokens into new caches; return the logits of each row's last token."""
        self._check(input_ids, attention_mask)
        keys_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        sources = torch.arange(len(input_ids), device=self._states_BSW.device)
        return self._step(self._engine.tensor(input_ids), TorchSeq2SeqCache(keys_values, sources))

    @torch.inference_mode()
    def decode(self, token_ids: Tokens, cache: object) -> Step:
        """Append one token per row, `(B,)`; the cache passed in must not be used again."""
        assert isinstance(cache, TorchSeq2SeqCache)
        check_context(self, cache.keys_values.get_seq_length() + 1)
        return self._step(self._engine.tensor(token_ids)[:, None], cache)

    @torch.inference_mode()
    def reordered(self, cache: object, rows: NDArray[np.int64]) -> TorchSeq2SeqCache:
        """Return a cache of other rows; see `BeamModel.reordered`."""
        assert isinstance(cache, TorchSeq2SeqCache)
        row_N: Any = self._engine.tensor(rows)  # transformers asks for a type that no function returns.
        cache.keys_values.reorder_cache(row_N)
        return TorchSeq2SeqCache(cache.keys_values, cache.sources[row_N])

    def _check(self, input_ids: Tokens, attention_mask: Tokens | None) -> None:
        check_targets(self, input_ids, attention_mask, sources=len(self._states_BSW))

    def _step(self, input_ids: Tensor, cache: TorchSeq2SeqCache) -> Step:
        return Step(self._run(input_ids, cache)[:, -1], cache)

    def _run(self, input_ids: Tensor, cache: TorchSeq2SeqCache | None) -> Logits:
        states_BSW, mask_BS = self._states_BSW, self._mask_BS
        if cache is not None:
            states_BSW = states_BSW[cache.sources]
            mask_BS = None if mask_BS is None else mask_BS[cache.sources]
        output = self._engine.model(
            attention_mask=mask_BS,
            decoder_input_ids=input_ids,
            encoder_outputs=BaseModelOutput(last_hidden_state=states_BSW),
            past_key_values=None if cache is None else cache.keys_values,
            use_cache=cache is not None,
        )
        array: Logits = output.logits.float().cpu().numpy()
        return array
