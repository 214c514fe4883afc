"""The config.json of a family, written from the fields of a `RootsConfig`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _activation_name(ours: str) -> str:
    return "gelu_pytorch_tanh" if ours == "gelu_tanh" else ours


def write_rotary(
    fields: Mapping[str, Any], *, windows: str = "none", attention_bias: bool = False
) -> dict[str, Any]:
    """Return a Llama-like config.json; what the family cannot say is found by reading it back.

    Args:
        fields: of the `RootsConfig`.
        windows: where the family keeps sliding windows: `none`, `all` or `by_layer`, as in `families.py`.
        attention_bias: whether the family has such a switch.
    """
    layer = fields["layers"][0]
    config = {
        "vocab_size": fields["vocab_size"],
        "hidden_size": fields["hidden_size"],
        "max_position_embeddings": fields["max_position_embeddings"],
        "num_hidden_layers": len(fields["layers"]),
        "num_attention_heads": layer["num_attention_heads"],
        "num_key_value_heads": layer["num_key_value_heads"],
        "head_dim": layer["head_dim"],
        "intermediate_size": layer["intermediate_size"],
        "rms_norm_eps": fields["norm_eps"],
        "rope_parameters": fields["rope_parameters"],
        "hidden_act": _activation_name(fields["activation"]),
        "tie_word_embeddings": fields["tie_word_embeddings"],
    }
    if attention_bias:
        config["attention_bias"] = fields["attention_bias"]
    if windows == "all":
        config["sliding_window"] = layer["sliding_window"]
    elif windows == "by_layer":
        widths = [each["sliding_window"] for each in fields["layers"]]
        window = next((width for width in widths if width is not None), None)
        config["use_sliding_window"], config["sliding_window"] = window is not None, window
        config["layer_types"] = [
            "full_attention" if width is None else "sliding_attention" for width in widths
        ]
    return config


def write_llama(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Llama config.json."""
    return {**write_rotary(fields, attention_bias=True), "mlp_bias": fields["mlp_bias"]}


def write_gpt2(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a GPT-2 config.json."""
    layer = fields["layers"][0]
    return {
        "vocab_size": fields["vocab_size"],
        "n_embd": fields["hidden_size"],
        "n_positions": fields["max_position_embeddings"],
        "n_layer": len(fields["layers"]),
        "n_head": layer["num_attention_heads"],
        "n_inner": layer["intermediate_size"],
        "layer_norm_epsilon": fields["norm_eps"],
        "activation_function": "gelu_new" if fields["activation"] == "gelu_tanh" else fields["activation"],
        "scale_attn_weights": fields["attention_scale"] is None,
        "tie_word_embeddings": fields["tie_word_embeddings"],
    }
