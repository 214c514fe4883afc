"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple

from roots_compress.families.base import Rule
from roots_compress.families.gguf.layers import (
    GEMMA2_KEYS,
    GEMMA3_KEYS,
    KERNEL,
    MOE_KEYS,
    gemma2_layer,
    gemma3_layer,
    gemma_head,
    lfm2_layer,
    phi3_layer,
    plain_layer,
    qwen3_moe_layer,
)
from roots_compress.families.gguf.positions import FREQUENCIES, LONGROPE_TENSORS
from roots_compress.families.gguf.reading import WINDOW, Reading
from roots_compress.families.transforms import Copy, Rows, Stacked, Taps, Transform
from roots_compress.models.ops.conv import READERS
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import Layer, ModelSpec

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
            plain_layer,
            tuple(_places(_LLAMA, biases=(*_QKV, *_OUTPUT, *_MLP))),
            paired_positions=True,
        ),
        GgufFamily("qwen2", partial(plain_layer, biases=True), tuple(_places(_LLAMA, biases=tuple(_QKV)))),
        GgufFamily(
            "qwen3",
            partial(plain_layer, qk_norm=True),
            tuple(_places({**_LLAMA, **_QK_NORMS}, biases=(*_QKV, *_OUTPUT))),
        ),
        GgufFamily(
            "qwen3moe",
            qwen3_moe_layer,
            tuple(_places({**_NORMS, **_QKV, **_OUTPUT, **_QK_NORMS, **_EXPERTS})),
            keys=MOE_KEYS,
        ),
        GgufFamily(
            "gemma", partial(plain_layer, activation="gelu_tanh"), tuple(_places(_LLAMA)), scaled=True
        ),
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
            partial(plain_layer, biases=True, activation="gelu_tanh", gated=False, bias=True),
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
            partial(plain_layer, activation="gelu_tanh", gated=False),
            (*_places(_UNGATED, biases=tuple(_UNGATED)), _NORM_BIAS),
            norm="layer_norm",
        ),
        GgufFamily(
            "nemotron",
            partial(plain_layer, activation="relu2", gated=False),
            (*_places(_UNGATED, biases=tuple(_UNGATED)), _NORM_BIAS),
            norm="layer_norm",
            partial=True,
        ),
        GgufFamily(
            "stablelm",
            plain_layer,
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
