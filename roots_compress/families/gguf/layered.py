"""Architectures whose layers may differ in heads and widths: each layer is made of what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import ValidationError

from roots_compress.errors import InputError
from roots_compress.families.gguf.metadata import DIRECTORY, KEYS, NORM_KEYS, Metadata
from roots_compress.families.gguf.positions import FREQUENCIES, ROTARY_KEYS, rope_of
from roots_compress.families.gguf.reading import Reading
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.base import first_fault
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.spec import Embeddings, Layer, ModelSpec, Norm, Stack


@dataclass(frozen=True)
class Layered:
    """Makes a specification layer by layer.

    Attributes:
        layer: makes a layer, by its number.
        biases: modules that may have one.
        keys: further keys that are asked for.
        rotary: whether positions are; else they are learned.
        partial: whether heads may be rotated in part.
        norm: kind of all norms.
        fewest_groups: key/value heads of a layer; 0 where some layers have no attention.
        scaled: whether embeddings are multiplied by the root of their width.
        head: of the logits.
        factors: names of tensors that are a part of the configuration: factors of frequencies.
    """

    layer: Callable[[Reading, int], Layer]
    biases: tuple[str, ...] = ()
    keys: frozenset[str] = frozenset()
    rotary: bool = True
    partial: bool = False
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    fewest_groups: int = 1
    scaled: bool = False
    head: Callable[[Reading], LmHead] = lambda _: LmHead()
    factors: tuple[str, ...] = (FREQUENCIES,)

    def read(self, model: GgufModel) -> ModelSpec:
        """Return the specification that a file's metadata ask for.

        Raises:
            InputError: a key is absent, unknown, impossible or beyond ROOTS; the message names it.
        """
        metadata = Metadata(model, KEYS | self.keys | (ROTARY_KEYS if self.rotary else frozenset()))
        width, heads = metadata.number("embedding_length"), metadata.numbers("attention.head_count")
        read, other = NORM_KEYS if self.norm == "rms_norm" else NORM_KEYS[::-1]
        norm = Norm(kind=self.norm, eps=metadata.positive(read))
        metadata.agree(other, norm.eps)
        context, head_dim = metadata.number("context_length"), metadata.head_size(width, heads[0])
        try:
            if not self.rotary:
                metadata.rows("position_embd.weight", "context_length")
            reading = Reading(
                metadata,
                width,
                heads,
                metadata.numbers("attention.head_count_kv", heads, least=self.fewest_groups),
                head_dim,
                metadata.numbers("feed_forward_length"),
                norm,
                rope_of(metadata, head_dim, self.factors, partial=self.partial) if self.rotary else None,
                frozenset(self.biases),
            )
            return ModelSpec(
                stacks={
                    "decoder": Stack(
                        layers=tuple(self.layer(reading, index) for index in range(metadata.layers)),
                        final_norm=norm,
                    )
                },
                embeddings=Embeddings(
                    vocabulary=metadata.rows("token_embd.weight", "vocab_size"),
                    width=width,
                    scale=width**0.5 if self.scaled else 1.0,
                    positions=None if self.rotary else context,
                ),
                head=self.head(reading),
                tied="output.weight" not in model.tensors,
                max_positions=context,
            )
        except ValueError as error:
            fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
            raise InputError(fault, where=model.path, remedy=DIRECTORY) from None
