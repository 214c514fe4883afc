"""A checkpoint's own encoder behind the `Encoder` protocol."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from roots_compress.models.heads import RootsWithHead
from roots_compress.models.spec import ModelSpec
from roots_compress.runtime.encoder import check_texts
from roots_compress.runtime.protocol import Tokens


class TorchEncoder:
    """Serves a model in evaluation mode, on the device and in the dtype it has; outputs are float32."""

    def __init__(self, model: RootsWithHead) -> None:
        self._model = model.eval()
        self.vocab_size = model.config.vocab_size
        self.max_context = model.config.max_position_embeddings

    @torch.inference_mode()
    def encode(
        self, input_ids: Tokens, attention_mask: Tokens | None = None, token_types: Tokens | None = None
    ) -> NDArray[np.float32]:
        """Return what the model's head gives; see `Encoder.encode`."""
        check_texts(self, input_ids)
        given = self._model(
            self._tensor(input_ids),
            attention_mask=self._tensor(attention_mask),
            token_type_ids=self._tensor(token_types),
        )
        found: NDArray[np.float32] = given[0].float().cpu().numpy()
        return found

    def spec(self) -> ModelSpec:
        """Return the model's own."""
        spec: ModelSpec = self._model.config.spec
        return spec

    def _tensor(self, numbers: Tokens | None) -> torch.Tensor | None:
        return (
            None
            if numbers is None
            else torch.from_numpy(np.ascontiguousarray(numbers)).to(self._model.device)
        )
