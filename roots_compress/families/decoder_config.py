"""What Llama-like families share: writing a configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from roots_compress.families.rope import PARTIAL, written_rope
from roots_compress.models.ops.attention import Attention
from roots_compress.models.ops.mlp import Activation, Mlp
from roots_compress.models.spec import ModelSpec, Norm

Windows = Literal["none", "all", "by_layer"]


def write_decoder(
    spec: ModelSpec,
    *,
    windows: Windows = "none",
    attention_bias: bool = False,
    mlp_bias: str | None = None,
    partial: bool = False,
    own_heads: bool = True,
    eps_key: str = "rms_norm_eps",
) -> dict[str, Any]:
    """Return a Llama-like config.json; what the family cannot say is found by reading it back.

    Args:
        windows: where the family keeps sliding windows.
        attention_bias: whether the family has such a switch.
        mlp_bias: the family's switch of biases in feed-forward blocks; None where it has none.
    """
    attentions = spec.attentions()
    attention, mlp = first_blocks(spec)
    norm = spec.stack.final_norm or Norm()
    turned = next((each for each in attentions if each.rope is not None), attention)
    config: dict[str, Any] = {
        "vocab_size": spec.embeddings.vocabulary,
        "hidden_size": spec.width,
        "max_position_embeddings": spec.max_positions,
        "num_hidden_layers": len(spec.layers),
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "intermediate_size": mlp.channels,
        eps_key: norm.eps,
        "rope_parameters": written_rope(turned),
        "hidden_act": activation_name(mlp.activation),
        "tie_word_embeddings": spec.tied,
    }
    if partial:
        config["rope_parameters"].setdefault(PARTIAL, 1.0)
    if own_heads:
        config["head_dim"] = attention.head_dim
    if attention_bias:
        config["attention_bias"] = attention.bias
    if mlp_bias is not None:
        config[mlp_bias] = mlp.bias
    if windows == "all":
        config["sliding_window"] = attention.window
    elif windows == "by_layer":
        window = next((each.window for each in attentions if each.window is not None), None)
        config["use_sliding_window"], config["sliding_window"] = window is not None, window
        config["layer_types"] = layer_types(attentions)
    return config


def typed_windows(spec: ModelSpec, default: int | None = None) -> dict[str, Any]:
    """Return the keys of a family whose layers are told apart by `layer_types` alone.

    Args:
        default: the window where no layer slides.
    """
    attentions = spec.attentions()
    window = next((each.window for each in attentions if each.window is not None), default)
    return {"sliding_window": window, "layer_types": layer_types(attentions)}


def layer_types(attentions: Sequence[Attention]) -> list[str]:
    """Return transformers' names of what layers attend to."""
    return ["full_attention" if each.window is None else "sliding_attention" for each in attentions]


def first_blocks(spec: ModelSpec) -> tuple[Attention, Mlp]:
    """Return the first attention, and the first feed-forward block; others are found by reading back.

    Raises:
        ValueError: the model has none of one of them.
    """
    ops = [op for _, op in spec.blocks()]
    attention = next((op for op in ops if isinstance(op, Attention)), None)
    mlp = next((op for op in ops if isinstance(op, Mlp)), None)
    if attention is None or mlp is None:
        raise ValueError("it has no attention, or no feed-forward block that all tokens go through")
    return attention, mlp


def activation_name(ours: Activation) -> str:
    """Return transformers' name of an activation."""
    return "gelu_pytorch_tanh" if ours == "gelu_tanh" else ours
