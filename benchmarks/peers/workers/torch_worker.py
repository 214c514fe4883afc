"""transformers on torch, float32: what most people run."""

from __future__ import annotations

from typing import Any

import torch
from serving import Logits, serve
from transformers import AutoModelForCausalLM


class TorchEngine:
    """A Hugging Face directory; prefill computes the last token's logits only, as `generate` does."""

    def __init__(self, path: str, threads: int) -> None:
        torch.set_num_threads(threads)
        self.settings: dict[str, str] = {}
        self._model = AutoModelForCausalLM.from_pretrained(
            path, dtype=torch.float32, local_files_only=True
        ).eval()

    def prefill(self, tokens: list[int]) -> None:
        """See `serving.Engine`, as for the other methods."""
        self._forward(tokens, None)

    def decode(self, token: int) -> None:
        self._forward([token], self._output.past_key_values)

    def last_logits(self) -> Logits:
        logits: Logits = self._output.logits[0, -1].numpy()
        return logits

    @torch.inference_mode()
    def all_logits(self, tokens: list[int]) -> Logits:
        logits: Logits = self._model(torch.tensor([tokens]), use_cache=False).logits[0].numpy()
        return logits

    @torch.inference_mode()
    def _forward(self, tokens: list[int], past: Any) -> None:
        self._output = self._model(
            torch.tensor([tokens]), past_key_values=past, use_cache=True, logits_to_keep=1
        )


if __name__ == "__main__":
    serve(lambda request: TorchEngine(request["path"], request["threads"]))
