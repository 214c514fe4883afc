"""onnxruntime-genai's own runtime, fed token by token."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnxruntime_genai as og
from serving import Logits, serve

UNTOLD = ("log_id", "provider_options", "intra_op_num_threads")
"""Entries of a session's options that are no settings, or are every engine's."""


class GenaiEngine:
    """A folder with `genai_config.json`; a generator's cache has `room` slots."""

    def __init__(self, path: str, threads: int, room: int) -> None:
        file = json.loads((Path(path) / "genai_config.json").read_text(encoding="utf-8"))
        options = file["model"]["decoder"].get("session_options", {})
        self.settings = {name: str(value) for name, value in options.items() if value and name not in UNTOLD}
        config = og.Config(path)
        config.overlay(
            '{"model": {"decoder": {"session_options": {"intra_op_num_threads": %d}}}}' % threads  # noqa: UP031
        )
        self._model = og.Model(config)
        self._parameters = og.GeneratorParams(self._model)
        self._parameters.set_search_options(max_length=room, do_sample=False)

    def prefill(self, tokens: list[int]) -> None:
        """See `serving.Engine`, as for the other methods."""
        self._generator = og.Generator(self._model, self._parameters)
        self._generator.append_tokens(np.array(tokens, np.int32))

    def decode(self, token: int) -> None:
        self._generator.append_tokens(np.array([token], np.int32))

    def last_logits(self) -> Logits:
        last: Logits = self._generator.get_output("logits")[0, -1]
        return last

    def all_logits(self, tokens: list[int]) -> Logits:
        self.prefill(tokens)
        logits: Logits = self._generator.get_output("logits")[0]
        return logits


if __name__ == "__main__":
    serve(lambda request: GenaiEngine(request["path"], request["threads"], request["room"]))
