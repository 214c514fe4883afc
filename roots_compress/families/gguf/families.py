"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pydantic import ValidationError

from roots_compress.errors import InputError
from roots_compress.families.base import Copy, Rows, Rule, Stacked, Taps, Transform
from roots_compress.families.gguf.layers import (
    GEMMA2_KEYS,
    GEMMA3_KEYS,
    KERNEL,
    MOE_KEYS,
    gemma2_layer,
    gemma3_layer,
    gemma_head,
    gemma_layer,
    gpt2_layer,
    lfm2_layer,
    llama_layer,
    nemotron_layer,
    phi3_layer,
    qwen2_layer,
    qwen3_layer,
    qwen3_moe_layer,
    starcoder2_layer,
)
from roots_compress.families.gguf.metadata import DIRECTORY, Metadata
from roots_compress.families.gguf.positions import FREQUENCIES, LONGROPE_TENSORS, ROTARY_KEYS, rope_of
from roots_compress.families.gguf.reading import WINDOW, Reading
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.base import first_fault
from roots_compress.models.ops.conv import READERS
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import Embeddings, Layer, ModelSpec, Norm, Stack

NORM_KEYS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
KEYS = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        *NORM_KEYS,
    }
)  # fmt: skip
"""Keys of every architecture, without its name before them."""


TAPS = "blk.{}.shortconv.conv.weight"
EXPERT = "experts.*"
"""In the place of each expert's name: the source stacks their tensors."""


class Place(NamedTuple):
    """The names of one tensor, `{}` in the place of a layer's number."""

    source: str
    targets: tuple[str, ...]
    """Several where the source holds them one after another."""

    def targets_in(self, index: int, experts: Sequence[str]) -> tuple[str, ...]:
        """Return the names in a layer, those of experts once for each."""
        return tuple(
            target.replace(EXPERT, expert).format(index)
            for target in self.targets
            for expert in (experts if EXPERT in target else ("",))
        )


@dataclass(frozen=True)
class GgufFamily:
    """How one GGUF architecture maps to ROOTS."""

    architecture: str
    layer: Callable[[Reading, int], Layer]
    """Makes a layer, by its number."""
    places: tuple[Place, ...]
    keys: frozenset[str] = frozenset()
    """Further keys that are asked for."""
    rotary: bool = True
    """Whether positions are; else they are learned."""
    partial: bool = False
    """Whether heads may be rotated in part."""
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    fewest_groups: int = 1
    """Key/value heads of a layer; 0 where some layers have no attention."""
    paired_positions: bool = False
    """Whether rows of q and k that rotate together lie next to each other, as in Meta's own Llama files."""
    scaled: bool = False
    """Whether embeddings are multiplied by the root of their width."""
    head: Callable[[Reading], LmHead] = lambda _: LmHead()
    ignored: tuple[str, ...] = (FREQUENCIES,)
    """Tensors that are a part of the configuration: the factors of frequencies."""

    def rules(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the place of each tensor that a model of this specification may have."""
        matrices = spec.matrices()
        for place, index in self._used(spec):
            op = spec.layers[index][-1].op
            targets = place.targets_in(index, tuple(op.names()) if isinstance(op, Moe) else ())
            transform: Transform = Copy()
            if EXPERT in place.targets[0]:
                transform = Stacked(len(targets))
            elif place.source == TAPS:
                transform = Taps()
            elif len(targets) > 1:
                modules = [target.rpartition(".")[0] for target in targets]
                transform = Rows(tuple(matrices[name].rows for name in modules))
            yield Rule(place.source.format(index), targets, transform)

    def numbered(self, layers: int) -> Iterator[tuple[Place, int]]:
        """Yield each place once for every layer that has it."""
        for place in self.places:
            for index in range(layers) if "{}" in place.source else (0,):
                yield place, index

    def _used(self, spec: ModelSpec) -> Iterator[tuple[Place, int]]:
        """Yield each place once for every layer that has its block."""
        names = [{each.name for each in layer} for layer in spec.layers]
        for place, index in self.numbered(len(spec.layers)):
            *_, module = place.targets[0].split(".", 4)[:4]
            if "{}" not in place.source or any(re.match(rf"{name}(_|$)", module) for name in names[index]):
                yield place, index


def _places(
    layer: Mapping[str, str], *, biases: tuple[str, ...] = (), norm: str = "output_norm", **others: str
) -> Iterator[Place]:
    """Yield the places of layers' modules, by GGUF's name and ours, and of what lies outside them."""
    outside = {"token_embd": "embed_tokens", norm: "norm", **others}
    for source, target in outside.items():
        yield Place(f"{source}.weight", (f"model.{target}.weight",))
    yield Place("output.weight", ("lm_head.weight",))
    for source, target in layer.items():
        yield Place(f"blk.{{}}.{source}.weight", (f"model.layers.{{}}.{target}.weight",))
        if source in biases:
            yield Place(f"blk.{{}}.{source}.bias", (f"model.layers.{{}}.{target}.bias",))


_NORMS = {"attn_norm": "self_attn_pre_norm", "ffn_norm": "mlp_pre_norm"}
_QKV = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
_OUTPUT = {"attn_output": "self_attn.o_proj"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA = {**_NORMS, **_QKV, **_OUTPUT, **_MLP}
_GPT2 = {**_NORMS, **_OUTPUT, "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def _fused(source: str, modules: tuple[str, ...], part: str) -> Place:
    return Place(f"blk.{{}}.{source}.{part}", tuple(f"model.layers.{{}}.{name}.{part}" for name in modules))


_PHI3 = {**_NORMS, **_OUTPUT, "ffn_down": "mlp.down_proj"}
_POST_NORMS = {"post_attention_norm": "self_attn_post_norm", "post_ffw_norm": "mlp_post_norm"}
_CONV = {"shortconv.conv": "conv.conv", "shortconv.out_proj": "conv.out_proj"}
_UNGATED = {**_NORMS, **_QKV, **_OUTPUT, "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_NORM_BIAS = Place("output_norm.bias", ("model.norm.bias",))
_EXPERTS = {
    "ffn_gate_inp": "mlp.router",
    "ffn_gate_exps": f"mlp.{EXPERT}.gate_proj",
    "ffn_up_exps": f"mlp.{EXPERT}.up_proj",
    "ffn_down_exps": f"mlp.{EXPERT}.down_proj",
}

GGUF_FAMILIES: dict[str, GgufFamily] = {
    family.architecture: family
    for family in (
        GgufFamily(
            "llama",
            llama_layer,
            tuple(_places(_LLAMA, biases=(*_QKV, *_OUTPUT, *_MLP))),
            paired_positions=True,
        ),
        GgufFamily("qwen2", qwen2_layer, tuple(_places(_LLAMA, biases=tuple(_QKV)))),
        GgufFamily("qwen3", qwen3_layer, tuple(_places({**_LLAMA, **_QK_NORMS}, biases=(*_QKV, *_OUTPUT)))),
        GgufFamily(
            "qwen3moe",
            qwen3_moe_layer,
            tuple(_places({**_NORMS, **_QKV, **_OUTPUT, **_QK_NORMS, **_EXPERTS})),
            keys=MOE_KEYS,
        ),
        GgufFamily("gemma", gemma_layer, tuple(_places(_LLAMA)), scaled=True),
        GgufFamily(
            "gemma2",
            gemma2_layer,
            tuple(_places({**_LLAMA, **_POST_NORMS})),
            keys=GEMMA2_KEYS,
            scaled=True,
            head=lambda reading: gemma_head(reading, 30.0),
        ),
        GgufFamily(
            "gemma3",
            gemma3_layer,
            tuple(_places({**_LLAMA, **_POST_NORMS, **_QK_NORMS})),
            keys=GEMMA3_KEYS,
            scaled=True,
            head=lambda reading: gemma_head(reading, None),
        ),
        GgufFamily(
            "phi3",
            phi3_layer,
            (
                *_places(_PHI3),
                _fused("attn_qkv", tuple(_QKV.values()), "weight"),
                _fused("ffn_up", ("mlp.gate_proj", "mlp.up_proj"), "weight"),
            ),
            keys=frozenset({WINDOW}),
            ignored=LONGROPE_TENSORS,
        ),
        GgufFamily(
            "gpt2",
            gpt2_layer,
            (
                *_places(_GPT2, biases=tuple(_GPT2), position_embd="embed_positions"),
                Place("output_norm.bias", ("model.norm.bias",)),
                _fused("attn_qkv", tuple(_QKV.values()), "weight"),
                _fused("attn_qkv", tuple(_QKV.values()), "bias"),
            ),
            rotary=False,
            norm="layer_norm",
            ignored=(),
        ),
        GgufFamily(
            "starcoder2",
            starcoder2_layer,
            (*_places(_UNGATED, biases=tuple(_UNGATED)), _NORM_BIAS),
            norm="layer_norm",
        ),
        GgufFamily(
            "nemotron",
            nemotron_layer,
            (*_places(_UNGATED, biases=tuple(_UNGATED)), _NORM_BIAS),
            norm="layer_norm",
            partial=True,
        ),
        GgufFamily(
            "stablelm",
            llama_layer,
            (*_places(_LLAMA, biases=(*_NORMS, *_QKV)), _NORM_BIAS),
            norm="layer_norm",
            partial=True,
        ),
        GgufFamily(
            "lfm2",
            lfm2_layer,
            (
                *_places({**_LLAMA, **_QK_NORMS, **_CONV}, norm="token_embd_norm"),
                Place("blk.{}.attn_norm.weight", ("model.layers.{}.conv_pre_norm.weight",)),
                _fused("shortconv.in_proj", tuple(f"conv.{name}" for name in READERS), "weight"),
            ),
            keys=frozenset({KERNEL}),
            fewest_groups=0,
        ),
    )
}
"""By `general.architecture`. Mistral's models are among those of `llama`."""


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
