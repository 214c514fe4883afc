"""This project's graph in its own engine, with the engine's own settings."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from serving import Logits, serve

from roots_compress.runtime.onnx.engine import OnnxEngine
from roots_compress.runtime.onnx.session import NO_FLASH_ATTENTION


class OursEngine:
    """A graph whose files the driver has checked."""

    def __init__(self, graph: str, threads: int) -> None:
        # It has the processor to itself while it is timed, as the others have, whose threads spin.
        self._engine = OnnxEngine.open(Path(graph), threads=threads, provider="cpu", spinning=True)
        attention = os.environ.get(NO_FLASH_ATTENTION, "1")
        self.settings = {**self._engine.settings, NO_FLASH_ATTENTION: attention}

    def prefill(self, tokens: list[int]) -> None:
        """See `serving.Engine`, as for the other methods."""
        self._step = self._engine.prefill(np.array([tokens]))

    def decode(self, token: int) -> None:
        self._step = self._engine.decode(np.array([token]), self._step.cache)

    def last_logits(self) -> Logits:
        return self._step.logits[0]

    def all_logits(self, tokens: list[int]) -> Logits:
        return self._engine.logits(np.array([tokens]))[0]


if __name__ == "__main__":
    serve(lambda request: OursEngine(request["path"], request["threads"]))
