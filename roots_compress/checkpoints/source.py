"""The facts about a loadable checkpoint, from its headers. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from roots_compress.checkpoints.adapters.changes import Adapter
from roots_compress.io.gguf_header import GgufTensor
from roots_compress.io.safetensors_header import TensorEntry
from roots_compress.models.limits import Limits
from roots_compress.models.spec import ModelSpec

Kind = Literal["roots", "transformers", "gguf"]
FLOAT_BYTES = 4
"""Bytes of a weight after the import."""


@dataclass(frozen=True)
class SourceInfo:
    """A checkpoint that can be loaded, so far as its headers tell."""

    path: Path
    """For an adapter, its base's."""
    kind: Kind
    model_type: str
    parameters: int
    """Parameters in all its tensors."""
    config: Mapping[str, Any]
    """config.json; for GGUF the metadata."""
    spec: ModelSpec
    """The model's specification."""
    tensors: Mapping[str, TensorEntry]
    """Every tensor of a directory; empty for GGUF."""
    gguf: Mapping[str, GgufTensor] = field(default_factory=dict)
    """Every tensor of a GGUF model; empty for a directory."""
    unread: tuple[str, ...] = ()
    """Names of other files of weights in a directory, which transformers does not read either."""
    stored_as: Mapping[str, str] = field(default_factory=dict)
    """The names of tensors in the files, where those of `tensors` are others."""
    left_out: tuple[str, ...] = ()
    """Parts of the checkpoint outside the text model, such as a vision tower."""
    ignores_code: bool = False
    """Whether Python code in the checkpoint is not run because transformers has the class itself."""
    adapter: Adapter | None = None
    """The changes of an adapter to its base."""

    def folder_with(self, *names: str) -> Path:
        """Return the folder whose files of a kind are read: the adapter's if it has one, else the base's."""
        if self.adapter is not None and any((self.adapter.folder / name).exists() for name in names):
            return self.adapter.folder
        return self.path

    @property
    def stored_bytes(self) -> int:
        """Approximate bytes of its weights in a ROOTS checkpoint or a graph."""
        if self.kind == "roots":
            return sum(entry.end - entry.start for entry in self.tensors.values())
        return FLOAT_BYTES * self.parameters

    @property
    def quantized(self) -> bool:
        """Whether its weights are integers, which no stage can change. GGUF weights are dequantized."""
        return self.kind == "roots" and bool(self.config.get("quantization"))

    @property
    def limits(self) -> Limits:
        """The model's limits."""
        return Limits.of(self.spec)

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        return self.spec.embeddings.vocabulary
