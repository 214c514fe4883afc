"""Parts of attention as data: sparse attention, norms, and latent attention."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from roots_compress.models.ops.base import Axis, Count, Input, Matrix, Member, Part, Positive


class TopM(Part):
    """Attention to the `keys` visible keys with the highest scores."""

    kind: Literal["top_m"] = "top_m"
    keys: Count


class BlockSparse(Part):
    """Attention to the query's own block of keys and the best `blocks - 1` earlier ones."""

    kind: Literal["block"] = "block"
    size: Count
    """Keys in a block."""
    blocks: Count


class QkNorm(Part):
    """RMS norms of queries and keys."""

    over: Literal["head", "projection"] = "head"
    """Over each head, or over all heads of a token at once."""
    eps: Positive = 1e-6
    after_rope: bool = False
    """Whether the norms come after the rotary positions, not before."""
    values: bool = False
    """Whether each head's values are normed too, without a gain."""


class Latent(Part):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).

    Keys and values of all heads are projected from one vector, and queries possibly from another, each after
    an RMS norm. A key's first channels, to which rotary positions apply, are shared by all heads and
    projected from the block's input.
    """

    rank: Count
    """Channels of the vector of keys and values."""
    query_rank: Count | None = None
    """Channels of the vector of queries; None: queries are projected from the block's input."""
    value_dim: Count
    """Channels of each head's values. A cache pads them with zeros to the width of keys."""
    eps: Positive = 1e-6

    @property
    def norms(self) -> Mapping[str, int]:
        """The norms of those vectors, and their widths."""
        queries = {} if self.query_rank is None else {"q_a_norm": self.query_rank}
        return {**queries, "kv_a_norm": self.rank}

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read the block's input."""
        return ("q_proj" if self.query_rank is None else "q_a_proj", "kv_a_proj", "k_rope_proj")

    def matrices(
        self, width: int, heads: int, head_dim: int, turned: int, *, bias: bool, output_bias: bool
    ) -> Mapping[str, Matrix]:
        """Return the linear layers of this many heads with `turned` rotated channels."""
        queries = {} if self.query_rank is None else {"q_a_proj": Matrix(self.query_rank, width, bias)}
        return {
            **queries,
            "q_proj": Matrix(heads * head_dim, self.query_rank or width, False),
            "kv_a_proj": Matrix(self.rank, width, bias),
            "k_rope_proj": Matrix(turned, width, bias),
            "k_proj": Matrix(heads * (head_dim - turned), self.rank, False),
            "v_proj": Matrix(heads * self.value_dim, self.rank, False),
            "o_proj": Matrix(width, heads * self.value_dim, output_bias),
        }

    def axis(self, heads: int, head_dim: int, turned: int) -> Axis:
        """Return the heads; tensors that heads share have other sizes and are not traced."""
        members = (
            Member("q_proj.weight", 0, head_dim, traced=False),
            Member("k_proj.weight", 0, head_dim - turned, traced=False),
            Member("v_proj.weight", 0, self.value_dim),
            Member("o_proj.weight", 1, self.value_dim),
        )
        return Axis("kv_groups", heads, members, "o_proj")

    def inputs(self) -> tuple[Input, ...]:
        """Return the inputs of the linear layers, in the order in which they are computed."""
        queries = () if self.query_rank is None else (Input(("q_proj",)),)
        return (
            Input(self.readers, of_stream=True),
            *queries,
            Input(("k_proj", "v_proj")),
            Input(("o_proj",), ("v_proj",), head_dim=self.value_dim, writes=True),
        )
