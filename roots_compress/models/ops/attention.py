"""Attention as data: heads, positions, windows, norms of queries and keys, sparseness."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from roots_compress.models.ops.attention_parts import BlockSparse as BlockSparse
from roots_compress.models.ops.attention_parts import Latent as Latent
from roots_compress.models.ops.attention_parts import QkNorm as QkNorm
from roots_compress.models.ops.attention_parts import TopM as TopM
from roots_compress.models.ops.base import (
    Axis,
    Count,
    Input,
    Matrix,
    Member,
    OpSpec,
    Positive,
    State,
    changed,
    weight_and_bias,
)
from roots_compress.models.ops.positions import Disentangled, Relative
from roots_compress.models.ops.positions import LinearScaling as LinearScaling
from roots_compress.models.ops.positions import Llama3Scaling as Llama3Scaling
from roots_compress.models.ops.positions import LongRopeScaling as LongRopeScaling
from roots_compress.models.ops.positions import ProportionalScaling as ProportionalScaling
from roots_compress.models.ops.positions import Rope as Rope
from roots_compress.models.ops.positions import YarnScaling as YarnScaling


class Attention(OpSpec):
    """Attention with grouped key/value heads."""

    kind: Literal["attention"] = "attention"
    group: ClassVar[str] = "attention"
    keeps: ClassVar[str] = "full_attention"
    heads: Count
    kv_heads: Count
    head_dim: Count
    rope: Rope | None = None
    relative: Relative | None = None
    disentangled: Disentangled | None = None
    window: Count | None = None
    """Keys visible to a query, itself included; on each side if not causal; None for all."""
    causal: bool = True
    source: Literal["self", "cross"] = "self"
    """Source of keys and values: the stack itself, or the other stack's output."""
    qk_norm: QkNorm | None = None
    scale: Positive | None = None
    """Factor on query-key products; None for `head_dim ** -0.5`."""
    softcap: Positive | None = None
    """c of `c * tanh(score / c)`, before the mask; None for none."""
    sinks: bool = False
    """Whether each head has an attention sink: a learned score in the softmax without a value."""
    bias: bool = False
    """On queries, keys and values."""
    output_bias: bool = False
    gated: bool = False
    """Whether the heads' outputs are multiplied by the sigmoid of a projection of the block's input."""
    sparse: Annotated[TopM | BlockSparse, Field(discriminator="kind")] | None = None
    """None: dense."""
    keys_as_values: bool = False
    """Whether the output of `k_proj`, before norms and positions, serves as values too."""
    sharing: Literal["gives", "takes"] | None = None
    """Whether later layers with the same window may read its keys and values (`gives`), or it reads those of
    the last such layer and computes none (`takes`)."""

    latent: Latent | None = None
    """None: keys and values are projected from the block's input."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.kv_heads} key/value heads do not divide {self.heads} query heads")
        if self.rope is not None:
            turned = self.rope.rotary_dim or self.head_dim
            if turned > self.head_dim:
                raise ValueError(
                    f"rope.rotary_dim {turned} is wider than its head, which has {self.head_dim} channels"
                )
            if turned % 2:
                name = "rope.rotary_dim" if self.rope.rotary_dim else "head_dim"
                raise ValueError(f"{name} {turned} is odd; rotary needs it even")
            self.rope.check_factors(turned // 2)
        norm = self.qk_norm
        if (norm is not None and norm.after_rope) and (
            self.rope is None or not self.causal or norm.over == "projection"
        ):
            raise ValueError("qk_norm.after_rope is for norms of each head of a causal attention with a rope")
        if (norm is not None and norm.values) and (self.source == "cross" or norm.over == "projection"):
            raise ValueError("qk_norm.values is for norms of each head of a self-attention")
        if self.sharing is not None and norm is not None and norm.after_rope:
            raise ValueError("sharing is for attention whose norms come before positions")
        if self.keys_as_values and (norm is None or not norm.values):
            raise ValueError("keys_as_values is for attention whose qk_norm has values")
        if self.softcap is not None and self.sparse is not None:
            raise ValueError("softcap is for dense attention only")
        unlike = (self.sparse, self.softcap, self.relative, self.disentangled)
        if self.sinks and (not self.causal or any(each is not None for each in unlike)):
            raise ValueError("sinks are for dense causal attention without a softcap or distances")
        if self.sharing is not None and (
            not self.causal or self.sinks or self.gated or any(each is not None for each in unlike)
        ):
            raise ValueError(
                "sharing is for dense causal attention without sinks, a gate, a softcap or distances"
            )
        if self.relative is not None:
            if self.sparse is not None or self.softcap is not None:
                raise ValueError("relative is for dense attention without a softcap only")
            exact = self.relative.buckets // (2 if self.causal else 4)
            if self.relative.max_distance <= exact:
                raise ValueError(
                    f"relative.max_distance must be above {exact}, the distances of a bucket each"
                )
        positions: list[object] = [self.rope, self.relative, self.sparse, self.softcap]
        if self.disentangled is not None:
            present = any(each is not None for each in positions)
            if self.causal or self.heads != self.kv_heads or present:
                raise ValueError(
                    "disentangled is for dense attention to both sides, with as many key/value heads as query"
                    " heads, and without other positions or a softcap"
                )
        if self.latent is not None:
            apart = (self.qk_norm, self.relative, self.disentangled, self.sharing, self.softcap, self.window)
            plain = self.heads == self.kv_heads and self.causal and not (self.gated or self.sinks)
            if not plain or any(map(bool, apart)):
                raise ValueError(
                    "latent is for causal attention with as many key/value heads as query heads, without a "
                    "gate, sinks, norms, a window, a softcap, sharing or distances"
                )
            if self.rope is None or not self.turned < self.head_dim >= self.latent.value_dim:
                raise ValueError(
                    f"latent is for heads of whose {self.head_dim} channels positions turn some, and whose "
                    "values are no wider"
                )
        if self.gated and not self.causal:
            raise ValueError("gated is for causal attention only")
        if self.source == "cross":
            others = (*positions, self.disentangled, self.window, self.qk_norm)
            if self.causal or any(each is not None for each in others):
                raise ValueError("cross-attention is dense, and has causal false and no positions or window")
        return self

    @property
    def name(self) -> str:
        return "self_attn" if self.source == "self" else "cross_attn"

    @property
    def queries(self) -> int:
        """Query heads of each key/value head."""
        return self.heads // self.kv_heads

    @property
    def factor(self) -> float:
        """On query-key products."""
        return self.scale or self.head_dim**-0.5

    @property
    def turned(self) -> int:
        """The head's first channels, to which rotary positions apply."""
        return 0 if self.rope is None else self.rope.rotary_dim or self.head_dim

    @property
    def value_dim(self) -> int:
        """Channels of a head's output."""
        return self.head_dim if self.latent is None else self.latent.value_dim

    @property
    def keys(self) -> Hashable:
        """The properties that attentions with shared keys and values have in common."""
        return self.window, self.kv_heads, self.head_dim, self.rope

    @property
    def made(self) -> tuple[str, ...]:
        """The linear layers that compute keys and values."""
        if self.sharing == "takes":
            return ()
        return ("k_proj",) if self.keys_as_values else ("k_proj", "v_proj")

    def matrices(self, width: int) -> Mapping[str, Matrix]:
        """Return queries, keys, values, the gate if there is one, and the output projection."""
        if self.latent is not None:
            sizes = (width, self.heads, self.head_dim, self.turned)
            return self.latent.matrices(*sizes, bias=self.bias, output_bias=self.output_bias)
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": Matrix(query, width, self.bias),
            **dict.fromkeys(self.made, Matrix(key_value, width, self.bias)),
            **({"gate_proj": Matrix(query, width, self.bias)} if self.gated else {}),
            "o_proj": Matrix(width, query, self.output_bias),
        }

    def axes(self) -> tuple[Axis, ...]:
        """Return key/value groups, each with its query heads, and the query heads of all groups alike.

        Groups that several layers read cannot be cut in just one of them.
        """
        if self.latent is not None:
            return (self.latent.axis(self.heads, self.head_dim, self.turned),)
        head, group = self.head_dim, self.queries * self.head_dim
        norms: tuple[Member, ...] = ()
        if self.qk_norm is not None and self.qk_norm.over == "projection":
            norms = (Member("q_norm.weight", 0, group), Member("k_norm.weight", 0, head))
        tables: tuple[Member, ...] = ()
        if self.relative is not None:
            tables = (Member("relative.weight", 1, 1),)
        if self.disentangled is not None:
            tables = tuple(Member(f"{name}.weight", 1, head) for name in self.disentangled.tables)
        if self.sinks:
            tables = (*tables, Member("sinks", 0, 1))
        of_queries = ("q_proj", "gate_proj") if self.gated else ("q_proj",)
        groups = (
            *(each for name in of_queries for each in weight_and_bias(name, group, bias=self.bias)),
            *(each for name in self.made for each in weight_and_bias(name, head, bias=self.bias)),
            Member("o_proj.weight", 1, group),
            *norms,
            *(replace(each, size=each.size * self.queries) for each in tables),
        )
        queries = (
            *(each for name in of_queries for each in weight_and_bias(name, head, bias=self.bias)),
            Member("o_proj.weight", 1, head),
            *(Member("q_norm.weight", 0, head) for each in norms if each.parameter == "q_norm.weight"),
            *tables,
        )
        alike = Axis("queries", self.heads, queries, "o_proj", groups=self.kv_heads)
        if self.sharing is not None:
            return (alike,)
        return (Axis("kv_groups", self.kv_heads, groups, "o_proj"), alike)

    def states(self, layer: int) -> tuple[State, ...]:
        """Return keys and values."""
        if self.sharing == "takes":
            return ()
        shape = self.kv_heads, None, self.head_dim
        return tuple(
            State(f"past_key_values.{layer}.{part}", f"present.{layer}.{part}", shape)
            for part in ("key", "value")
        )

    def inputs(self) -> tuple[Input, ...]:
        """Return the inputs of queries, keys, values and the gate, and of the output projection."""
        if self.latent is not None:
            return self.latent.inputs()
        # A norm of values would undo a scale, and other layers would read scaled values.
        plain = self.sharing is None and (self.qk_norm is None or not self.qk_norm.values)
        producers = ("v_proj",) if plain else ()
        values = Input(("o_proj",), producers, repeats=self.queries, head_dim=self.head_dim, writes=True)
        if self.source == "cross":
            return (Input(("q_proj",), of_stream=True), Input(("k_proj", "v_proj"), of_source=True), values)
        gate = ("gate_proj",) if self.gated else ()
        return (Input(("q_proj", *self.made, *gate), of_stream=True), values)

    def parameters(self, width: int) -> int:
        """Return the number of parameters, with norms, tables of distances and sinks."""
        norms = 0
        if self.qk_norm is not None:
            queries, keys = (1, 1) if self.qk_norm.over == "head" else (self.heads, self.kv_heads)
            norms = self.head_dim * (queries + keys * bool(self.made))
        if self.latent is not None:
            norms = sum(self.latent.norms.values())
        tables = 0 if self.relative is None else self.relative.buckets * self.heads
        if self.disentangled is not None:
            tables = len(self.disentangled.tables) * self.disentangled.rows * self.heads * self.head_dim
        return super().parameters(width) + norms + tables + self.heads * self.sinks

    def cut(self, axis: str, units: int) -> Attention:
        if axis == "kv_groups":
            return changed(self, kv_heads=units, heads=units * self.queries)
        assert axis == "queries", axis
        return changed(self, heads=units)

    def form(self) -> tuple[Hashable, ...]:
        """Return source, heads' size, rotated channels, norms, distances, sinks and gate."""
        norm = None
        if self.qk_norm is not None:
            norm = self.qk_norm.over, self.qk_norm.after_rope, self.qk_norm.values
        return (
            self.kind,
            self.source,
            self.head_dim,
            self.turned,
            norm,
            self.relative,
            self.disentangled,
            self.sinks,
            self.gated,
            self.made,
            self.latent,
        )
