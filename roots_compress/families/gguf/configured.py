"""GGUF architectures as families of other files: their keys make a configuration of the family.

In some, layers may differ in heads and widths, and projections in whether they have biases: what the file has
is then put into the specification of the configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from pydantic import ValidationError

from roots_compress.errors import InputError
from roots_compress.families.gguf.metadata import DIRECTORY, GUESSING, KEYS, NORM_KEYS, Metadata
from roots_compress.families.gguf.positions import FREQUENCIES, LONGROPE_TENSORS, ROTARY_KEYS, rope_of
from roots_compress.families.registry import FAMILIES
from roots_compress.families.rope import ORIGINAL, PARTIAL
from roots_compress.families.switches import Switches
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.base import changed, first_fault
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Layer, ModelSpec

MODEL_TYPE = "model_type"
HEADS, GROUPS, WIDTHS = "attention.head_count", "attention.head_count_kv", "feed_forward_length"
QKV, OUTPUT = ("attn_q", "attn_k", "attn_v", "attn_qkv"), ("attn_output",)
MLP = ("ffn_gate", "ffn_up", "ffn_down")
SPELLED = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
    "max_position_embeddings": "context_length",
    "num_experts": "expert_count",
    "num_local_experts": "expert_count",
    "num_experts_per_tok": "expert_used_count",
    "sliding_window": "attention.sliding_window",
}
"""GGUF's names of keys, by those of configurations."""
Config = dict[str, Any]
Settings = Callable[[Metadata, Config], Config]
"""Takes the metadata and what they say in every architecture, and returns the configuration."""


def nothing_else(metadata: Metadata, config: Config) -> Config:
    """Return a configuration as it is, with the biases of attention."""
    return {**config, "attention_bias": metadata.biased("attn_q", "attn_qkv", "attn_output")}


def rotary(metadata: Metadata, head_dim: int, *, partial: bool = False) -> Config:
    """Return what the metadata say of rotary positions, which may turn heads in part."""
    rope = rope_of(metadata, head_dim, (FREQUENCIES,), partial=partial)
    share = {PARTIAL: (rope.rotary_dim or head_dim) / head_dim} if partial else {}
    return {"rope_parameters": rope.parameters() | share}


PARTLY = partial(rotary, partial=True)
"""What turns heads in part."""


def longrope(metadata: Metadata, head_dim: int) -> Config:
    """Return what the metadata and the file's factors say of a Phi-3's positions."""
    rope = rope_of(metadata, head_dim, LONGROPE_TENSORS)
    said = rope.parameters() | {PARTIAL: (rope.rotary_dim or head_dim) / head_dim}
    original = {ORIGINAL: said.pop(ORIGINAL)} if ORIGINAL in said else {}
    listed = {key: [*value] if isinstance(value, tuple) else value for key, value in said.items()}
    return {"rope_parameters": listed, **original}


def learned(metadata: Metadata, head_dim: int) -> Config:
    """Refuse a table of positions of another length than the context's."""
    metadata.rows("position_embd.weight", "context_length")
    return {}


@dataclass(frozen=True)
class Configured:
    """Makes a configuration of a family, and the specification of that.

    Attributes:
        model_type: the family; a configuration may name another.
        positions: reads those of heads of a size.
        varied: keys of numbers by layer, which `settings` reads itself.
        unsaid: keys of the others that files of the architecture leave out, for nothing there has them.
        norm: kind of all norms.
        factors: names of tensors that are a part of the configuration: factors of frequencies.
        layered: whether layers may differ in heads and in the widths of feed-forward blocks.
        biases: modules that have one where the file has it, whatever the configuration says.
        head_size: returns the size of a head, whose positions are read, of a width and so many heads.
    """

    model_type: str
    settings: Settings = nothing_else
    keys: frozenset[str] = frozenset()
    positions: Callable[[Metadata, int], Config] = rotary
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    eps_key: str = "rms_norm_eps"
    varied: frozenset[str] = frozenset()
    unsaid: frozenset[str] = frozenset()
    factors: tuple[str, ...] = (FREQUENCIES,)
    layered: bool = False
    biases: tuple[str, ...] = ()
    head_size: Callable[[Metadata, int, int], int] = Metadata.head_size

    def read(self, model: GgufModel) -> ModelSpec:
        """Return the specification that a file's metadata ask for.

        Raises:
            InputError: a key is absent, unknown, impossible or beyond ROOTS; the message names it.
        """
        of_positions = frozenset() if self.positions is learned else ROTARY_KEYS
        metadata = Metadata(model, KEYS | self.keys | of_positions | {GUESSING})
        config = self.settings(metadata, self._config(metadata))
        family = FAMILIES[config.pop(MODEL_TYPE, self.model_type)]
        try:
            return self._as_stored(metadata, family.read_config(Switches(config, model.path)))
        except InputError as error:
            raise InputError(_spelled(error.message, model), where=model.path, remedy=DIRECTORY) from None
        except ValidationError as error:
            raise InputError(first_fault(error), where=model.path, remedy=DIRECTORY) from None

    def _config(self, metadata: Metadata) -> Config:
        """Return what the metadata say in every architecture."""
        width, heads = metadata.number("embedding_length"), self._one(metadata, HEADS)
        read, other = NORM_KEYS if self.norm == "rms_norm" else NORM_KEYS[::-1]
        eps = metadata.positive(read)
        metadata.agree(other, eps)
        head_dim, groups = self.head_size(metadata, width, heads), self._one(metadata, GROUPS, heads)
        if self.layered and width % heads:
            heads = groups = 1  # Classes of transformers want equal shares; each layer gets its own numbers.
        return {
            "hidden_size": width,
            "num_hidden_layers": metadata.layers,
            "num_attention_heads": heads,
            "num_key_value_heads": groups,
            "head_dim": head_dim,
            "intermediate_size": self._one(metadata, WIDTHS),
            "vocab_size": metadata.rows("token_embd.weight", "vocab_size"),
            "max_position_embeddings": metadata.number("context_length"),
            "tie_word_embeddings": "output.weight" not in metadata.model.tensors,
            self.eps_key: eps,
            **self.positions(metadata, head_dim),
        }

    def _one(self, metadata: Metadata, key: str, default: int | None = None) -> int:
        """Return a number that is the same for all layers, or the first layer's."""
        default = 1 if key in self.unsaid and default is None else default
        usual = None if default is None else [default] * metadata.layers
        varied = self.layered or key in self.varied
        return metadata.numbers(key, usual)[0] if varied else metadata.one(key, usual)

    def _as_stored(self, metadata: Metadata, spec: ModelSpec) -> ModelSpec:
        """Return a specification with the numbers of each layer, and with the biases that the file has."""
        attention: Config = {"bias": metadata.biased(*QKV)} if {*QKV} & {*self.biases} else {}
        attention |= {"output_bias": metadata.biased(*OUTPUT)} if {*OUTPUT} & {*self.biases} else {}
        mlp: Config = {"bias": metadata.biased(*MLP)} if {*MLP} & {*self.biases} else {}
        by_layer: list[tuple[Config, Config]] = [({}, {})] * metadata.layers
        if self.layered:
            heads = metadata.numbers(HEADS)
            numbers = zip(heads, metadata.numbers(GROUPS, heads), metadata.numbers(WIDTHS), strict=True)
            by_layer = [
                ({"heads": own, "kv_heads": keys}, {"channels": width}) for own, keys, width in numbers
            ]

        def stored(each: Sublayer, of_attention: Config, of_mlp: Config) -> Sublayer:
            if isinstance(each.op, Attention):
                return changed(each, op=changed(each.op, **attention, **of_attention))
            return changed(each, op=changed(each.op, **mlp, **of_mlp)) if isinstance(each.op, Mlp) else each

        layers: list[Layer] = [
            tuple(stored(each, *own) for each in layer)
            for layer, own in zip(spec.layers, by_layer, strict=True)
        ]
        return spec.with_layers(tuple(layers))


def _spelled(message: str, model: GgufModel) -> str:
    """Return a message about a configuration with the file's own names of keys."""
    names = "|".join(SPELLED)
    return re.sub(rf"\b({names})\b", lambda found: f"{model.architecture}.{SPELLED[found[0]]}", message)
