"""Version 1 of a ROOTS config.json, still read: a list of widths by layer, all else equal for all layers.

Torch-free. `spec_of` makes a specification from its fields. A student's shape may still use them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from roots_compress.models.ops.attention import Attention, BlockSparse, QkNorm, Rope, TopM
from roots_compress.models.ops.base import LARGEST, Count, Part, Positive, first_fault
from roots_compress.models.ops.heads import LmHead
from roots_compress.models.ops.mlp import Mlp
from roots_compress.models.ops.stack import Sublayer
from roots_compress.models.spec import Embeddings, Layer, ModelSpec, Norm, Stack

Given = Mapping[str, Any]
SPEC_KEYS = frozenset(ModelSpec.model_fields)


class Widths(Part):
    """One of `layers`."""

    num_attention_heads: Count
    num_key_value_heads: Count
    head_dim: Count
    intermediate_size: Count
    sliding_window: Count | None = None


class Fields(Part):
    """Every field that describes the model, with its default."""

    vocab_size: Count = 4096
    hidden_size: Count = 256
    max_position_embeddings: Count = 1024
    layers: list[Widths] = []  # noqa: RUF012
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    norm_eps: Positive = 1e-6
    position: Literal["rotary", "learned"] = "rotary"
    rope_parameters: Any = None
    activation: Literal["silu", "gelu", "gelu_tanh", "relu"] = "silu"
    gated_mlp: bool = True
    attention_bias: bool = False
    attention_output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    attention_scale: Positive | None = None
    embedding_scale: Positive = 1.0
    logit_scale: Positive = 1.0
    tie_word_embeddings: bool = True
    attention: Any = {"kind": "dense"}  # noqa: RUF012


KEYS = frozenset(Fields.model_fields)
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
TENSOR_NAMES = {"input_layernorm": "self_attn_pre_norm", "post_attention_layernorm": "mlp_pre_norm"}
"""Modules of a layer that had another name in version 1."""


def renamed(tensor: str) -> str:
    """Return the current name of a tensor of a version 1 checkpoint."""
    return ".".join(TENSOR_NAMES.get(part, part) for part in tensor.split("."))


def read_spec(config: Given) -> ModelSpec:
    """Return the specification that the keys of a ROOTS config.json describe, of either version.

    Keys that describe something else are ignored.

    Raises:
        ValueError: the model is impossible; the message names the first fault and its key.
    """
    if newer := SPEC_KEYS & config.keys():
        if older := KEYS & config.keys():
            raise ValueError(f"{min(older)} is a key of version 1, and {min(newer)} of version 2")
        return ModelSpec.of_json({key: config[key] for key in newer})
    return spec_of(config)


def is_version1(config: Given) -> bool:
    """Return whether a ROOTS config.json is of version 1."""
    return not SPEC_KEYS & config.keys()


def spec_of(given: Given) -> ModelSpec:
    """Return the specification that version 1 fields describe; other keys are passed over.

    Raises:
        ValueError: a field has a wrong type, a switch an unknown value, or a layer's heads do not fit.
    """
    try:
        fields = Fields.model_validate_json(json.dumps({key: given[key] for key in KEYS & given.keys()}))
        norm = Norm(kind=fields.norm, eps=fields.norm_eps)
        learned = fields.position == "learned"
        sparse = _sparse(fields.attention, fields.max_position_embeddings)
        rope = None if learned else plain_rope(fields.rope_parameters)
        return ModelSpec(
            stacks={
                "decoder": Stack(
                    layers=tuple(
                        _layer(index, layer, fields, norm, rope, sparse)
                        for index, layer in enumerate(fields.layers)
                    ),
                    final_norm=norm,
                )
            },
            embeddings=Embeddings(
                vocabulary=fields.vocab_size,
                width=fields.hidden_size,
                scale=fields.embedding_scale,
                positions=fields.max_position_embeddings if learned else None,
            ),
            head=LmHead(scale=fields.logit_scale),
            tied=fields.tie_word_embeddings,
            max_positions=fields.max_position_embeddings,
        )
    except ValidationError as error:
        raise ValueError(first_fault(error)) from None


def _layer(
    index: int,
    widths: Widths,
    fields: Fields,
    norm: Norm,
    rope: Rope | None,
    sparse: TopM | BlockSparse | None,
) -> Layer:
    try:
        attention = Attention(
            heads=widths.num_attention_heads,
            kv_heads=widths.num_key_value_heads,
            head_dim=widths.head_dim,
            rope=rope,
            window=widths.sliding_window,
            qk_norm=QkNorm(eps=norm.eps) if fields.qk_norm else None,
            scale=fields.attention_scale,
            bias=fields.attention_bias,
            output_bias=fields.attention_output_bias,
            sparse=sparse,
        )
    except ValidationError as error:
        raise ValueError(f"layers.{index}: {first_fault(error)}") from None
    mlp = Mlp(
        channels=widths.intermediate_size,
        activation=fields.activation,
        gated=fields.gated_mlp,
        bias=fields.mlp_bias,
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
