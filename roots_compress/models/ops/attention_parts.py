"""Parts of attention as data: which keys are read, norms, and what latent attention makes keys of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from roots_compress.models.ops.base import Axis, Count, Input, Matrix, Member, Part, Positive


class TopM(Part):
    """Attention to the `keys` visible keys of highest score."""

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
    """Each head by itself, or all heads of a token at once."""
    eps: Positive = 1e-6
    after_rope: bool = False
    """Whether rotary positions turn what the norms read, and not what they give."""
    values: bool = False
    """Whether each head's values are normed too, without a gain."""


class Latent(Part):
    """Multi-head latent attention (DeepSeek-V2, arXiv:2405.04434).

    Keys and values of all heads are made of one vector, queries perhaps of another, each behind an RMS norm.
    Of each key the channels that positions turn, a head's first, are the same of all heads, and made of what
    the block reads.
    """

    rank: Count
    """Channels of the vector of keys and values."""
    query_rank: Count | None = None
    """Of that of queries; None: these are made of what the block reads."""
    value_dim: Count
    """Of each head's values. A cache has zeros behind them, so that they are as wide as keys."""
    eps: Positive = 1e-6

    @property
    def norms(self) -> Mapping[str, int]:
        """The norms of those vectors, and their widths."""
        queries = {} if self.query_rank is None else {"q_a_norm": self.query_rank}
        return {**queries, "kv_a_norm": self.rank}

    @property
    def readers(self) -> tuple[str, ...]:
        """The linear layers that read what the block reads."""
        return ("q_proj" if self.query_rank is None else "q_a_proj", "kv_a_proj", "k_rope_proj")

    def matrices(
        self, width: int, heads: int, head_dim: int, turned: int, *, bias: bool, output_bias: bool
    ) -> Mapping[str, Matrix]:
        """Return the linear layers of so many heads, `turned` of whose channels positions turn."""
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
        """Return the heads; what heads share has other sizes, and is in no trace."""
        members = (
            Member("q_proj.weight", 0, head_dim, traced=False),
            Member("k_proj.weight", 0, head_dim - turned, traced=False),
            Member("v_proj.weight", 0, self.value_dim),
            Member("o_proj.weight", 1, self.value_dim),
        )
        return Axis("kv_groups", heads, members, "o_proj")

    def inputs(self) -> tuple[Input, ...]:
        """Return what the linear layers read, in the order in which it is made."""
        queries = () if self.query_rank is None else (Input(("q_proj",)),)
        return (
            Input(self.readers, of_stream=True),
            *queries,
            Input(("k_proj", "v_proj")),
            Input(("o_proj",), ("v_proj",), head_dim=self.value_dim, writes=True),
        )
