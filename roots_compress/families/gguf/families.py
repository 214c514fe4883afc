"""The GGUF architectures that can be read: tensors, metadata and what they mean, as llama.cpp takes them.

Every tensor has a place and every key of the architecture's namespace is understood, or it is refused by
name: llama.cpp itself stops at a tensor that it does not use. Torch-free.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from roots_compress.errors import InputError
from roots_compress.families.families import Fields, Rule, Transform
from roots_compress.families.gguf.metadata import DIRECTORY, Metadata
from roots_compress.families.gguf.positions import FREQUENCIES, ROTARY_KEYS, rope_parameters
from roots_compress.io.gguf_file import GgufModel

NORM_KEYS = ("attention.layer_norm_rms_epsilon", "attention.layer_norm_epsilon")
KEYS = frozenset(
    {
        "block_count", "context_length", "embedding_length", "feed_forward_length", "vocab_size",
        "attention.head_count", "attention.head_count_kv", "attention.key_length", "attention.value_length",
        *NORM_KEYS,
    }
)  # fmt: skip
"""Keys of every architecture, without its name before them."""


@dataclass(frozen=True)
class GgufFamily:
    """How one GGUF architecture maps to ROOTS."""

    architecture: str
    rules: tuple[Rule, ...]
    position: str = "rotary"
    paired_positions: bool = False
    """Whether rows of q and k that rotate together lie next to each other, as in Meta's own Llama files."""
    always_biased: bool = False
    """Whether there are no models without biases on q, k and v."""
    qk_norm: bool = False

    prefix = ""
    ignored = (FREQUENCIES,)
    """The factors of frequencies are a part of the configuration."""

    @property
    def model_type(self) -> str:
        """The name of the family of directories that these models are of."""
        return self.architecture


def _rules(layer: Mapping[str, str], *, biases: tuple[str, ...] = (), **others: str) -> Iterator[Rule]:
    """Yield the rules of layers' modules, by GGUF's name and ours, and of what lies outside them."""
    outside = {"token_embd": "embed_tokens", "output_norm": "norm", **others}
    for source, target in outside.items():
        yield Rule(f"{source}.weight", (f"model.{target}.weight",))
    yield Rule("output.weight", ("lm_head.weight",))
    for source, target in layer.items():
        yield Rule(f"blk.{{}}.{source}.weight", (f"model.layers.{{}}.{target}.weight",))
        if source in biases:
            yield Rule(f"blk.{{}}.{source}.bias", (f"model.layers.{{}}.{target}.bias",))


_NORMS = {"attn_norm": "self_attn_pre_norm", "ffn_norm": "mlp_pre_norm"}
_QKV = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj"}
_OUTPUT = {"attn_output": "self_attn.o_proj"}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA = {**_NORMS, **_QKV, **_OUTPUT, **_MLP}
_GPT2 = {**_NORMS, **_OUTPUT, "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}


def _fused(part: str, transform: Transform) -> Rule:
    targets = tuple(f"model.layers.{{}}.{name}.{part}" for name in _QKV.values())
    return Rule(f"blk.{{}}.attn_qkv.{part}", targets, transform)


GGUF_FAMILIES: dict[str, GgufFamily] = {
    family.architecture: family
    for family in (
        GgufFamily("llama", tuple(_rules(_LLAMA, biases=(*_QKV, *_OUTPUT, *_MLP))), paired_positions=True),
        GgufFamily("qwen2", tuple(_rules(_LLAMA, biases=tuple(_QKV))), always_biased=True),
        GgufFamily("qwen3", tuple(_rules({**_LLAMA, **_QK_NORMS}, biases=(*_QKV, *_OUTPUT))), qk_norm=True),
        GgufFamily(
            "gpt2",
            (
                *_rules(_GPT2, biases=tuple(_GPT2), position_embd="embed_positions"),
                Rule("output_norm.bias", ("model.norm.bias",)),
                _fused("weight", "split"),
                _fused("bias", "split"),
            ),
            position="learned",
            always_biased=True,
        ),
    )
}
"""By `general.architecture`. Mistral's models are among those of `llama`."""


def read_gguf_fields(model: GgufModel) -> Fields:
    """Return the fields of `RootsConfig` that a GGUF model asks for, after placing each of its tensors.

    Raises:
        InputError: a key or a tensor is absent, unknown, impossible or beyond ROOTS; the message names it.
    """
    family = GGUF_FAMILIES[model.architecture]
    rotary = family.position == "rotary"
    metadata = Metadata(model, KEYS | (ROTARY_KEYS if rotary else frozenset()))
    layers, hidden = metadata.layers, metadata.number("embedding_length")
    _check_tensors(family, model, layers)

    def has(*modules: str) -> bool:
        return any(
            f"blk.{index}.{module}.bias" in model.tensors for index in range(layers) for module in modules
        )

    heads = metadata.numbers("attention.head_count")
    groups = metadata.numbers("attention.head_count_kv", heads)
    head_dim = metadata.head_size(hidden, heads[0])
    widths = metadata.numbers("feed_forward_length")
    each = zip(heads, groups, widths, strict=True)
    read, other = NORM_KEYS if rotary else NORM_KEYS[::-1]
    fields: Fields = {
        "vocab_size": metadata.rows("token_embd.weight", "vocab_size"),
        "hidden_size": hidden,
        "max_position_embeddings": metadata.number("context_length"),
        "layers": [
            {
                "num_attention_heads": queries,
                "num_key_value_heads": pairs,
                "head_dim": head_dim,
                "intermediate_size": width,
                "sliding_window": None,
            }
            for queries, pairs, width in each
        ],
        "norm": "rms_norm" if rotary else "layer_norm",
        "norm_eps": metadata.positive(read),
        "position": family.position,
        "activation": "silu" if rotary else "gelu_tanh",
        "gated_mlp": rotary,
        "attention_bias": family.always_biased or has("attn_q", "attn_k", "attn_v"),
        "attention_output_bias": not rotary or has("attn_output"),
        "mlp_bias": not rotary or has("ffn_gate", "ffn_up", "ffn_down"),
        "qk_norm": family.qk_norm,
        "tie_word_embeddings": "output.weight" not in model.tensors,
    }
    metadata.agree(other, fields["norm_eps"])
    if rotary:
        fields["rope_parameters"] = rope_parameters(metadata, head_dim)
    else:
        metadata.rows("position_embd.weight", "context_length")
    _check_complete(family, model, fields)
    return fields


def _check_tensors(family: GgufFamily, model: GgufModel, layers: int) -> None:
    """Refuse tensors that the architecture has no place for."""
    known = {name for name, _ in _places(family, layers)}
    if family.position == "rotary":
        known.add(FREQUENCIES)
    for name in sorted(model.tensors.keys() - known):
        raise InputError(
            f"holds the tensor {name!r}, which no {family.architecture} model of {layers} layers has",
            where=model.tensors[name].file,
            remedy="The model is not of the architecture that the file names, or another version of it. "
            + DIRECTORY,
        )


def _check_complete(family: GgufFamily, model: GgufModel, fields: Fields) -> None:
    """Refuse a model that lacks a tensor, by GGUF's name for it."""
    biased = {
        "attn_q": fields["attention_bias"], "attn_k": fields["attention_bias"],
        "attn_v": fields["attention_bias"], "attn_qkv": True, "attn_output": fields["attention_output_bias"],
        "ffn_gate": fields["mlp_bias"], "ffn_up": fields["mlp_bias"], "ffn_down": fields["mlp_bias"],
        "output": not fields["tie_word_embeddings"],
    }  # fmt: skip
    for name, module in _places(family, len(fields["layers"])):
        optional = name.endswith(".bias") or module == "output"
        if name not in model.tensors and not (optional and not biased.get(module, True)):
            raise InputError(
                f"lacks the tensor {name!r}",
                where=model.path,
                remedy="The file is incomplete or damaged; copy or download it again.",
            )


def _places(family: GgufFamily, layers: int) -> Iterator[tuple[str, str]]:
    """Yield the name of every tensor that the architecture may have, with its module's."""
    for rule in family.rules:
        module = rule.source.split(".")[-2]
        for index in range(layers) if "{}" in rule.source else (0,):
            yield rule.source.format(index), module
