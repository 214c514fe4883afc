"""Another tool's graph in ONNX Runtime with I/O binding: the fastest way to run it from Python.

Graphs of optimum and of onnxruntime-genai name their inputs alike. One whose attention is
`GroupQueryAttention` gets one buffer as past and present; for the others the presents of a step are the pasts
of the next.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from serving import Logits, serve

PAST, PRESENT = "past_key_values.", "present."


class OrtEngine:
    """A decoder's graph; `room` is the most tokens a shared buffer holds."""

    def __init__(self, path: str, threads: int, *, shared: bool, room: int, settings: dict[str, str]) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        self.settings = settings
        for name, value in settings.items():
            options.add_session_config_entry(name, value)
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        self._pasts = [name for name in self._inputs if name.startswith(PAST)]
        self._shared, self._room = shared, room
        settings = Path(path).with_name("genai_config.json")
        if settings.exists():
            decoder = json.loads(settings.read_text(encoding="utf-8"))["model"]["decoder"]
            self._widths = decoder["num_key_value_heads"], decoder["head_size"]
        self._values: dict[str, Any] = {}
        self._logits: Any = None
        self._length = 0

    def prefill(self, tokens: list[int]) -> None:
        """See `serving.Engine`, as for the other methods."""
        self._length = 0
        if not (self._shared and self._values):
            self._values = {name: self._empty(name) for name in self._pasts}
        self._run(tokens)

    def decode(self, token: int) -> None:
        self._run([token])

    def last_logits(self) -> Logits:
        last: Logits = self._logits[0, -1]
        return last

    def all_logits(self, tokens: list[int]) -> Logits:
        self.prefill(tokens)
        logits: Logits = self._logits[0]
        return logits

    def _empty(self, name: str) -> Any:
        _batch, heads, _slots, width = self._inputs[name].shape
        if isinstance(heads, str) or isinstance(
            width, str
        ):  # Not said by the graph itself in onnxruntime-genai's.
            heads, width = self._widths
        slots = self._room if self._shared else 0
        return ort.OrtValue.ortvalue_from_numpy(np.zeros((1, heads, slots, width), np.float32))

    def _run(self, tokens: list[int]) -> None:
        total = self._length + len(tokens)
        feed: dict[str, NDArray[np.int64]] = {
            "input_ids": np.array([tokens], np.int64),
            "attention_mask": np.ones((1, total), np.int64),
            "position_ids": np.arange(self._length, total, dtype=np.int64)[None],
        }
        binding = self._session.io_binding()
        for name, value in feed.items():
            if name in self._inputs:
                binding.bind_cpu_input(name, value)
        binding.bind_output("logits", "cpu")
        for name in self._pasts:
            binding.bind_ortvalue_input(name, self._values[name])
            present = PRESENT + name.removeprefix(PAST)
            if self._shared:
                binding.bind_ortvalue_output(present, self._values[name])
            else:
                binding.bind_output(present, "cpu")
        self._session.run_with_iobinding(binding)
        logits, *presents = binding.get_outputs()
        if not self._shared:
            self._values = dict(zip(self._pasts, presents, strict=True))
        self._logits = logits.numpy()
        self._length = total


if __name__ == "__main__":
    serve(
        lambda request: OrtEngine(
            request["path"],
            request["threads"],
            shared=request["shared"],
            room=request["room"],
            settings=request["session_options"],
        )
    )
