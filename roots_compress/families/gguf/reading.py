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
        """Whether any layer has a bias of one of these modules."""
        tensors = self.metadata.model.tensors
        return any(
            f"blk.{index}.{module}.bias" in tensors for index in range(self.layers) for module in modules
        )

    def windows(self, default: int | None, pattern: int) -> list[int | None]:
        """Return each layer's window: all slide but every `pattern`-th, unless the file tells them apart.

        Args:
            default: where the file names no window.
            pattern: of the architecture.
        """
        size = self.metadata.get(WINDOW)
        window = default if size is None else None if size == 0 else self.metadata.number(WINDOW)
        given = self.metadata.get(PATTERN)
        if isinstance(given, tuple | list):
            if len(given) != self.layers or any(type(each) is not bool for each in given):
                self.metadata.refuse(PATTERN, f"must hold true or false for each of {self.layers} layers")
            return [window if each else None for each in given]
        every = self.metadata.number(PATTERN, pattern)
        return [window if (index + 1) % every else None for index in range(self.layers)]
