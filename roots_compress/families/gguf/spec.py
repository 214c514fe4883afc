"""The specification of a GGUF model, once each of its tensors and keys is understood. Torch-free."""

from __future__ import annotations

from pydantic import ValidationError

from roots_compress.errors import InputError
from roots_compress.families.gguf.families import GGUF_FAMILIES, GgufFamily
from roots_compress.families.gguf.metadata import DIRECTORY, Metadata
from roots_compress.families.gguf.positions import ROTARY_KEYS, rope_of
from roots_compress.families.gguf.reading import Reading
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.base import first_fault
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack

NORM_KEYS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")


KEYS = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        *NORM_KEYS,
    }
)  # fmt: skip
"""Keys of every architecture, without its name before them."""


def read_gguf_spec(model: GgufModel) -> ModelSpec:
    """Return the specification that a GGUF model asks for, after placing each of its tensors.

    Raises:
        InputError: a key or a tensor is absent, unknown, impossible or beyond ROOTS; the message names it.
    """
    family = GGUF_FAMILIES[model.architecture]
    metadata = Metadata(model, KEYS | family.keys | (ROTARY_KEYS if family.rotary else frozenset()))
    width = metadata.number("embedding_length")
    _check_tensors(family, model, metadata.layers)
    heads = metadata.numbers("attention.head_count")
    read, other = NORM_KEYS if family.norm == "rms_norm" else NORM_KEYS[::-1]
    norm = Norm(kind=family.norm, eps=metadata.positive(read))
    metadata.agree(other, norm.eps)
    context, head_dim = metadata.number("context_length"), metadata.head_size(width, heads[0])
    try:
        if not family.rotary:
            metadata.rows("position_embd.weight", "context_length")
        reading = Reading(
            metadata,
            width,
            heads,
            metadata.numbers("attention.head_count_kv", heads, least=family.fewest_groups),
            head_dim,
            metadata.numbers("feed_forward_length"),
            norm,
            rope_of(metadata, head_dim, family.ignored, partial=family.partial) if family.rotary else None,
        )
        spec = ModelSpec(
            stacks={
                "decoder": Stack(
                    layers=tuple(family.layer(reading, index) for index in range(metadata.layers)),
                    final_norm=norm,
                )
            },
            embeddings=Embeddings(
                vocabulary=metadata.rows("token_embd.weight", "vocab_size"),
                width=width,
                scale=width**0.5 if family.scaled else 1.0,
                positions=None if family.rotary else context,
            ),
            head=family.head(reading),
            tied="output.weight" not in model.tensors,
            max_positions=context,
        )
    except ValueError as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(fault, where=model.path, remedy=DIRECTORY) from None
    _check_complete(family, model, spec)
    return spec


def _check_tensors(family: GgufFamily, model: GgufModel, layers: int) -> None:
    """Refuse tensors that the architecture has no place for."""
    known = {place.source.format(index) for place, index in family.numbered(layers)}
    known.update(family.ignored)
    for name in sorted(model.tensors.keys() - known):
        raise InputError(
            f"holds the tensor {name!r}, which no {family.architecture} model of {layers} layers has",
            where=model.tensors[name].file,
            remedy="The model is not of the architecture that the file names, or another version of it. "
            + DIRECTORY,
        )


def _check_complete(family: GgufFamily, model: GgufModel, spec: ModelSpec) -> None:
    """Refuse a model that lacks a tensor, by GGUF's name for it."""
    biased = {f"{name}.bias": matrix.bias for name, matrix in spec.matrices().items()}
    for rule in family.rules(spec):
        optional = not biased.get(rule.targets[0], True) or (spec.tied and rule.source == "output.weight")
        if rule.source not in model.tensors and not optional:
            raise InputError(
                f"lacks the tensor {rule.source!r}",
                where=model.path,
                remedy="The file is incomplete or damaged; copy or download it again.",
            )
