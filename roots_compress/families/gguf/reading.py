"""What the metadata of every GGUF architecture say, and the blocks that are made of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from roots_compress.families.gguf.metadata import Metadata
from roots_compress.models.ops.attention import Attention, Rope
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import Norm

WINDOW, PATTERN = "attention.sliding_window", "attention.sliding_window_pattern"


@dataclass(frozen=True)
class Reading:
    """The numbers of a model; lists have one for each layer."""

    metadata: Metadata
    width: int
    heads: list[int]
    groups: list[int]
    head_dim: int
    channels: list[int]
    norm: Norm
    rope: Rope | None
    """None where positions are learned."""
    biases: frozenset[str]
    """Modules that may have one."""

    @property
    def layers(self) -> int:
        """How many there are."""
        return self.metadata.layers

    def attention(self, index: int, **others: Any) -> Attention:
        """Return the attention of a layer, biased where the file has biases."""
        learned = self.rope is None
        values: dict[str, Any] = {
            "heads": self.heads[index],
            "kv_heads": self.groups[index],
            "head_dim": self.head_dim,
            "rope": self.rope,
            "bias": self.has("attn_q", "attn_k", "attn_v", "attn_qkv"),
            "output_bias": learned or self.has("attn_output"),
        }
        return Attention(**{**values, **others})

    def mlp(self, index: int, **others: Any) -> Mlp:
        """Return the feed-forward block of a layer, biased where the file has biases."""
        bias = self.has("ffn_gate", "ffn_up", "ffn_down")
        return Mlp(**{"channels": self.channels[index], "bias": bias, **others})

    def has(self, *modules: str) -> bool:
        """Whether any layer has a bias of one of these modules, which the architecture lets have one."""
        return self.metadata.biased(*(each for each in modules if each in self.biases))

    def windows(self, default: int | None, pattern: int) -> list[int | None]:
        """Return each layer's window: all slide but every `pattern`-th, unless the file tells them apart.

        Args:
            default: where the file names no window.
            pattern: of the architecture.
        """
        size = self.metadata.get(WINDOW)
        window = default if size is None else None if size == 0 else self.metadata.number(WINDOW)
        return [window if each else None for each in self.metadata.flags(PATTERN, pattern)]
