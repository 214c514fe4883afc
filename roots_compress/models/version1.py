"""Version 1 of a ROOTS config.json, still read: a list of widths by layer, all else equal for all layers.

Torch-free. `spec_of` makes a specification from its fields. A student's shape may still use them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from roots_compress.models.ops.attention import Attention, BlockSparse, QkNorm, Rope, TopM
from roots_compress.models.ops.base import LARGEST, first_fault
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, Layer, ModelSpec, Norm, Stack

Fields = Mapping[str, Any]
SPEC_KEYS = frozenset(ModelSpec.model_fields)

DEFAULTS: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "max_position_embeddings": 1024,
    "layers": [],
    "norm": "rms_norm",
    "norm_eps": 1e-6,
    "position": "rotary",
    "rope_parameters": None,
    "activation": "silu",
    "gated_mlp": True,
    "attention_bias": False,
    "attention_output_bias": False,
    "mlp_bias": False,
    "qk_norm": False,
    "attention_scale": None,
    "embedding_scale": 1.0,
    "logit_scale": 1.0,
    "tie_word_embeddings": True,
    "attention": {"kind": "dense"},
}
"""Every field that describes the model, with its default."""
ATTENTION_KEYS = {"dense": (), "top_m": ("top_m",), "block": ("block_size", "num_blocks")}
"""Keys of each attention besides `kind`; all are integers of at least 1."""
ROPE_KEYS = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": (
        "factor",
        "original_max_position_embeddings",
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
    ),
    "proportional": ("partial_rotary_factor",),
}
"""Keys of each scaling of rotary positions, besides `rope_type` and `rope_theta`."""
CHOICES = {
    "norm": ("rms_norm", "layer_norm"),
    "position": ("rotary", "learned"),
    "activation": ("silu", "gelu", "gelu_tanh", "relu"),
}
FLAGS = (
    "gated_mlp",
    "attention_bias",
    "attention_output_bias",
    "mlp_bias",
    "qk_norm",
    "tie_word_embeddings",
)
WIDTH_KEYS = ("num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size")
LAYER_KEYS = (*WIDTH_KEYS, "sliding_window")
TENSOR_NAMES = {"input_layernorm": "self_attn_pre_norm", "post_attention_layernorm": "mlp_pre_norm"}
"""Modules of a layer that had another name in version 1."""


def renamed(tensor: str) -> str:
    """Return the current name of a tensor of a version 1 checkpoint."""
    return ".".join(TENSOR_NAMES.get(part, part) for part in tensor.split("."))


def read_spec(config: Fields) -> ModelSpec:
    """Return the specification that the keys of a ROOTS config.json describe, of either version.

    Keys that describe something else are ignored.

    Raises:
        ValueError: the model is impossible; the message names the first fault and its key.
    """
    if newer := SPEC_KEYS & config.keys():
        if older := DEFAULTS.keys() & config.keys():
            raise ValueError(f"{min(older)} is a key of version 1, and {min(newer)} of version 2")
        return ModelSpec.of_json({key: config[key] for key in SPEC_KEYS & config.keys()})
    return spec_of({key: config[key] for key in DEFAULTS.keys() & config.keys()})


def is_version1(config: Fields) -> bool:
    """Return whether a ROOTS config.json is of version 1."""
    return not SPEC_KEYS & config.keys()


def spec_of(given: Fields) -> ModelSpec:
    """Return the specification that version 1 fields describe.

    Raises:
        ValueError: a field has a wrong type, a switch an unknown value, or a layer's heads do not fit.
    """
    fields = {**DEFAULTS, **given}
    for name in ("vocab_size", "hidden_size", "max_position_embeddings"):
        _check_width(name, fields[name])
    for name in ("norm_eps", "embedding_scale", "logit_scale"):
        _check_positive(name, fields[name])
    for name, known in CHOICES.items():
        check_member(name, fields[name], known)
    for name in FLAGS:
        if not isinstance(fields[name], bool):
            raise ValueError(f"{name} is {fields[name]!r:.100}; it must be true or false")
    if fields["attention_scale"] is not None:
        _check_positive("attention_scale", fields["attention_scale"])
    norm = Norm(kind=fields["norm"], eps=fields["norm_eps"])
    learned = fields["position"] == "learned"
    layers = fields["layers"]
    if not isinstance(layers, list):
        raise ValueError(f"layers is {layers!r:.100}; it must be a list")
    sparse = _sparse(fields["attention"], fields["max_position_embeddings"])
    rope = None if learned else plain_rope(fields["rope_parameters"])
    try:
        return ModelSpec(
            stacks={
                "decoder": Stack(
                    layers=tuple(
                        _layer(index, layer, fields, norm, rope, sparse) for index, layer in enumerate(layers)
                    ),
                    final_norm=norm,
                )
            },
            embeddings=Embeddings(
                vocabulary=fields["vocab_size"],
                width=fields["hidden_size"],
                scale=fields["embedding_scale"],
                positions=fields["max_position_embeddings"] if learned else None,
            ),
            head=LmHead(scale=fields["logit_scale"]),
            tied=fields["tie_word_embeddings"],
            max_positions=fields["max_position_embeddings"],
        )
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None


def _layer(
    index: int, given: Any, fields: Fields, norm: Norm, rope: Rope | None, sparse: TopM | BlockSparse | None
) -> Layer:
    if not isinstance(given, dict):
        raise ValueError(f"layers[{index}] is {given!r:.100}; it must be an object")
    layer = {"sliding_window": None, **given}
    unknown, missing = set(layer) - set(LAYER_KEYS), set(WIDTH_KEYS) - set(layer)
    if unknown or missing:
        raise ValueError(f"layers[{index}]: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}")
    for key, value in layer.items():
        if key != "sliding_window" or value is not None:
            _check_width(f"layers[{index}].{key}", value)
    heads, kv_heads = layer["num_attention_heads"], layer["num_key_value_heads"]
    if heads % kv_heads:
        raise ValueError(f"layers[{index}]: {kv_heads} key/value heads do not divide {heads} query heads")
    if rope is not None and layer["head_dim"] % 2:
        raise ValueError(f"layers[{index}]: head_dim {layer['head_dim']} is odd; rotary needs it even")
    attention = Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=layer["head_dim"],
        rope=rope,
        window=layer["sliding_window"],
        qk_norm=QkNorm(eps=norm.eps) if fields["qk_norm"] else None,
        scale=fields["attention_scale"],
        bias=fields["attention_bias"],
        output_bias=fields["attention_output_bias"],
        sparse=sparse,
    )
    mlp = Mlp(
        channels=layer["intermediate_size"],
        activation=fields["activation"],
        gated=fields["gated_mlp"],
        bias=fields["mlp_bias"],
    )
    return (Sublayer(op=attention, pre_norm=norm), Sublayer(op=mlp, pre_norm=norm))


def _sparse(given: Any, max_positions: int) -> TopM | BlockSparse | None:
    if not isinstance(given, Mapping):
        raise ValueError(f"attention is {given!r:.100}; it must be an object")
    kind = str(given.get("kind"))
    check_member("attention.kind", kind, ATTENTION_KEYS)
    numbers = {key: value for key, value in given.items() if key != "kind"}
    unknown = set(numbers) - set(ATTENTION_KEYS[kind])
    missing = set(ATTENTION_KEYS[kind]) - set(numbers) - {"block_size"}
    if unknown or missing:
        raise ValueError(f"attention: unknown keys {sorted(unknown)}, missing keys {sorted(missing)}")
    for key, value in numbers.items():
        _check_width(f"attention.{key}", value)
    if kind == "top_m":
        return TopM(keys=numbers["top_m"])
    if kind == "block":
        size = numbers.get("block_size") or math.isqrt(max_positions - 1) + 1
        return BlockSparse(size=size, blocks=numbers["num_blocks"])
    return None


def plain_rope(given: Any) -> Rope:
    """Return the rotary positions that `rope_parameters` describe, as transformers spells them."""
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"rope_parameters is {given!r:.100}; it must be an object")
    parameters = {"rope_type": "default", "rope_theta": 10000.0, **(given or {})}
    rope_type = parameters["rope_type"]
    check_member("rope_parameters.rope_type", rope_type, ROPE_KEYS)
    unknown = set(parameters) - {"rope_type", "rope_theta", *ROPE_KEYS[rope_type]}
    if unknown:
        raise ValueError(f"rope_parameters: keys {sorted(unknown)} are not known for rope_type {rope_type!r}")
    for key, value in parameters.items():
        if key not in ("rope_type", "truncate") and not (value is None and key in ROPE_KEYS[rope_type]):
            _check_positive(f"rope_parameters.{key}", value)
    theta = parameters["rope_theta"]
    if rope_type == "default":
        return Rope(theta=theta)
    scaling = {key: parameters[key] for key in ROPE_KEYS[rope_type] if parameters.get(key) is not None}
    if "truncate" in parameters:
        scaling["truncate"] = bool(parameters["truncate"])
    try:
        return Rope.model_validate({"theta": theta, "scaling": {"kind": rope_type, **scaling}})
    except ValidationError as error:
        raise ValueError(f"rope_parameters: {first_fault(error)}") from None


def check_member(name: str, value: Any, known: Any) -> None:
    """Refuse what is not among the names that are known."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is {value!r}, not one of {', '.join(known)}")


def _check_positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a number above 0")


def _check_width(name: str, value: Any) -> None:
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise ValueError(f"{name} is {value!r:.100}; it must be a whole number from 1 to {LARGEST}")
