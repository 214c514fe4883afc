"""Checkpoints' own models as engines: decoders, encoders, and both together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from roots_compress.models.caches import empty_cache
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.limits import longrope_length
from roots_compress.models.modeling import RootsForCausalLM
from roots_compress.models.seq2seq import RootsForSeq2SeqLM
from roots_compress.models.spec import ModelSpec
from roots_compress.runtime.encoder import check_texts
from roots_compress.runtime.prompts import check_context, check_prompt, check_targets, left_pad
from roots_compress.runtime.protocol import Logits, Step, Tokens

Model = TypeVar("Model", bound=RootsWithHead)


class _Served(Generic[Model]):
    """A model in evaluation mode, on the device and in the dtype it has; what it gives becomes float32."""

    def __init__(self, model: Model) -> None:
        self.model = model.eval()
        self.vocab_size = model.config.vocab_size
        self.max_context = model.config.max_position_embeddings

    @overload
    def tensor(self, numbers: Tokens) -> Tensor: ...

    @overload
    def tensor(self, numbers: None) -> None: ...

    def tensor(self, numbers: Tokens | None) -> Tensor | None:
        """Return numbers on the model's device."""
        if numbers is None:
            return None
        return torch.from_numpy(np.ascontiguousarray(numbers, dtype=np.int64)).to(self.model.device)


@dataclass(frozen=True)
class TorchCache:
    """Keys and values, and the mask `(B, S)` of what they hold; no mask where nothing is padded."""

    keys_values: Cache
    attention_mask: Tensor | None


class TorchEngine(_Served[RootsForCausalLM]):
    """A decoder behind the `LanguageModel` protocol."""

    continues = True
    """See `Writer.continues`."""

    @property
    def renewed_after(self) -> int | None:
        """See `LanguageModel.renewed_after`."""
        return longrope_length(self.model.config.spec)

    def begin(self, tokens: Sequence[int]) -> tuple[TorchEngine, list[int]]:
        """Return itself and the prompt; see `Writer.begin`."""
        return self, list(tokens)

    @torch.inference_mode()
    def logits(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Logits:
        """Return the logits of every position, `(B, T, V)`, without a cache."""
        check_prompt(self, input_ids, attention_mask)
        output = self.model(self.tensor(input_ids), self.tensor(attention_mask), use_cache=False)
        return _to_numpy(output.logits)

    @torch.inference_mode()
    def prefill(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> Step:
        """Read a prompt into a new cache; return the logits of each row's last token."""
        check_prompt(self, input_ids, attention_mask)
        cache = TorchCache(empty_cache(self.model.config.spec), self.tensor(attention_mask))
        return self._step(self.tensor(input_ids), cache)

    @torch.inference_mode()
    def decode(self, token_ids: Tokens, cache: object) -> Step:
        """Append one token per row, `(B,)`; the cache passed in must not be used again."""
        assert isinstance(cache, TorchCache)
        check_context(self, cache.keys_values.get_seq_length() + 1)
        mask = cache.attention_mask
        if mask is not None:
            mask = torch.cat((mask, mask.new_ones((mask.shape[0], 1))), dim=1)
        return self._step(self.tensor(token_ids)[:, None], TorchCache(cache.keys_values, mask))

    @torch.inference_mode()
    def reordered(self, cache: object, rows: NDArray[np.int64]) -> TorchCache:
        """Return a cache of other rows; see `BeamModel.reordered`."""
        assert isinstance(cache, TorchCache)
        row_N: Any = self.tensor(rows)  # transformers asks for a type that no function returns.
        cache.keys_values.reorder_cache(row_N)
        mask = cache.attention_mask
        return TorchCache(cache.keys_values, None if mask is None else mask[row_N])

    def _step(self, input_ids: Tensor, cache: TorchCache) -> Step:
        output = self.model(
            input_ids,
            cache.attention_mask,
            past_key_values=cache.keys_values,
            use_cache=True,
            logits_to_keep=1,
        )
        return Step(_to_numpy(output.logits[:, -1]), cache)


def _to_numpy(logits: Tensor) -> Logits:
    array: Logits = logits.float().cpu().numpy()
    return array


class TorchEncoder(_Served[RootsWithHead]):
    """An encoder behind the `Encoder` protocol."""

    @torch.inference_mode()
    def encode(
        self, input_ids: Tokens, attention_mask: Tokens | None = None, token_types: Tokens | None = None
    ) -> NDArray[np.float32]:
        """Return what the model's head gives; see `Encoder.encode`."""
        check_texts(self, input_ids)
        given = self.model(
            self.tensor(input_ids),
            attention_mask=self.tensor(attention_mask),
            token_type_ids=self.tensor(token_types),
        )
        return _to_numpy(given[0])

    def spec(self) -> ModelSpec:
        """Return the model's own."""
        spec: ModelSpec = self.model.config.spec
        return spec


@dataclass(frozen=True)
class TorchSeq2SeqCache:
    """Keys and values of targets and sources, and the source of each row."""

    keys_values: EncoderDecoderCache
    sources: Tensor


class TorchSeq2Seq(_Served[RootsForSeq2SeqLM]):
    """An encoder and a decoder behind the `Seq2SeqModel` protocol."""

    continues = False
    """See `Writer.continues`."""

    def __init__(self, model: RootsForSeq2SeqLM) -> None:
        super().__init__(model)
        self.start = model.head.start

    def begin(self, tokens: Sequence[int]) -> tuple[TorchTargets, list[int]]:
        """Read a source; see `Writer.begin`."""
        input_ids, _mask = left_pad([tokens])
        return self.read(input_ids), [self.start]

    @torch.inference_mode()
    def read(self, input_ids: Tokens, attention_mask: Tokens | None = None) -> TorchTargets:
        """Run the encoder; see `Seq2SeqModel.read`."""
        check_texts(self, input_ids)
        mask_BS = self.tensor(attention_mask)
        return TorchTargets(self, self.model.encode(self.tensor(input_ids), mask_BS), mask_BS)


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
        return _to_numpy(output.logits)
