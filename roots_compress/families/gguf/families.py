"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pydantic import ValidationError

from roots_compress.errors import InputError
from roots_compress.families.base import Copy, Rows, Rule
from roots_compress.families.decoder import pre_norm_layer
from roots_compress.families.gguf.metadata import DIRECTORY, Metadata
from roots_compress.families.gguf.positions import FREQUENCIES, ROTARY_KEYS, rope_parameters
from roots_compress.io.gguf_file import GgufModel
from roots_compress.models.ops.attention import Attention, QkNorm
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.spec import Embeddings, ModelSpec, Norm, Stack, first_fault
from roots_compress.models.version1 import plain_rope

NORM_KEYS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
KEYS = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        *NORM_KEYS,
    }
)  # fmt: skip
"""Keys of every architecture, without its name before them."""


class Place(NamedTuple):
    """The names of one tensor, `{}` in the place of a layer's number."""

    source: str
    targets: tuple[str, ...]
    """Several where the source holds them one after another."""


@dataclass(frozen=True)
class GgufFamily:
    """How one GGUF architecture maps to ROOTS."""

    architecture: str
    places: tuple[Place, ...]
    rotary: bool = True
    """Whether positions are; else they are learned, and the model is built as GPT-2 is."""
    paired_positions: bool = False
    """Whether rows of q and k that rotate together lie next to each other, as in Meta's own Llama files."""
    always_biased: bool = False
    """Whether there are no models without biases on q, k and v."""
    qk_norm: bool = False

    ignored = (FREQUENCIES,)
    """The factors of frequencies are a part of the configuration."""

    def rules(self, spec: ModelSpec) -> Iterator[Rule]:
        """Yield the place of each tensor that a model of this specification may have."""
        matrices = spec.matrices()
        for place, index in self.numbered(len(spec.layers)):
            targets = tuple(target.format(index) for target in place.targets)
            modules = [target.rpartition(".")[0] for target in targets]
            transform = Rows(tuple(matrices[name].rows for name in modules)) if len(targets) > 1 else Copy()
            yield Rule(place.source.format(index), targets, transform)

    def numbered(self, layers: int) -> Iterator[tuple[Place, int]]:
        """Yield each place once for every layer that has it."""
        for place in self.places:
            for index in range(layers) if "{}" in place.source else (0,):
                yield place, index


def _places(layer: Mapping[str, str], *, biases: tuple[str, ...] = (), **others: str) -> Iterator[Place]:
    """Yield the places of layers' modules, by GGUF's name and ours, and of what lies outside them."""
    outside = {"token_embd": "embed_tokens", "output_norm": "norm", **others}
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


def _fused(part: str) -> Place:
    targets = tuple(f"model.layers.{{}}.{name}.{part}" for name in _QKV.values())
    return Place(f"blk.{{}}.attn_qkv.{part}", targets)


GGUF_FAMILIES: dict[str, GgufFamily] = {
    family.architecture: family
    for family in (
        GgufFamily("llama", tuple(_places(_LLAMA, biases=(*_QKV, *_OUTPUT, *_MLP))), paired_positions=True),
        GgufFamily("qwen2", tuple(_places(_LLAMA, biases=tuple(_QKV))), always_biased=True),
        GgufFamily("qwen3", tuple(_places({**_LLAMA, **_QK_NORMS}, biases=(*_QKV, *_OUTPUT))), qk_norm=True),
        GgufFamily(
            "gpt2",
            (
                *_places(_GPT2, biases=tuple(_GPT2), position_embd="embed_positions"),
                Place("output_norm.bias", ("model.norm.bias",)),
                _fused("weight"),
                _fused("bias"),
            ),
            rotary=False,
            always_biased=True,
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
    metadata = Metadata(model, KEYS | (ROTARY_KEYS if family.rotary else frozenset()))
    layers, width = metadata.layers, metadata.number("embedding_length")
    _check_tensors(family, model, layers)

    def has(*modules: str) -> bool:
        return any(
            f"blk.{index}.{module}.bias" in model.tensors for index in range(layers) for module in modules
        )

    heads = metadata.numbers("attention.head_count")
    groups = metadata.numbers("attention.head_count_kv", heads)
    head_dim = metadata.head_size(width, heads[0])
    channels = metadata.numbers("feed_forward_length")
    read, other = NORM_KEYS if family.rotary else NORM_KEYS[::-1]
    norm = Norm(kind="rms_norm" if family.rotary else "layer_norm", eps=metadata.positive(read))
    metadata.agree(other, norm.eps)
    context = metadata.number("context_length")
    rope = None
    try:
        if family.rotary:
            rope = plain_rope(rope_parameters(metadata, head_dim))
        else:
            metadata.rows("position_embd.weight", "context_length")
        spec = ModelSpec(
            stacks={
                "decoder": Stack(
                    layers=tuple(
                        pre_norm_layer(
                            Attention(
                                heads=queries,
                                kv_heads=pairs,
                                head_dim=head_dim,
                                rope=rope,
                                qk_norm=QkNorm(eps=norm.eps) if family.qk_norm else None,
                                bias=family.always_biased or has("attn_q", "attn_k", "attn_v"),
                                output_bias=not family.rotary or has("attn_output"),
                            ),
                            Mlp(
                                channels=count,
                                activation="silu" if family.rotary else "gelu_tanh",
                                gated=family.rotary,
                                bias=not family.rotary or has("ffn_gate", "ffn_up", "ffn_down"),
                            ),
                            norm,
                        )
                        for queries, pairs, count in zip(heads, groups, channels, strict=True)
                    ),
                    final_norm=norm,
                )
            },
            embeddings=Embeddings(
                vocabulary=metadata.rows("token_embd.weight", "vocab_size"),
                width=width,
                positions=None if family.rotary else context,
            ),
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
    if family.rotary:
        known.add(FREQUENCIES)
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
