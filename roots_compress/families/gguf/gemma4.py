"""Gemma 4 in GGUF files, whose layers that attend to everything have other heads than the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roots_compress.families.base import Computed
from roots_compress.families.gemma4 import MOE
from roots_compress.families.gemma4_experts import experts_beside
from roots_compress.families.gguf.configured import Config
from roots_compress.families.gguf.experts import CHOSEN, EXPERT_CHANNELS, EXPERTS
from roots_compress.families.gguf.metadata import Metadata
from roots_compress.families.gguf.positions import FREQUENCIES, factors_in
from roots_compress.families.gguf.settings import PATTERN, WINDOW, layer_types
from roots_compress.families.rope import FULL, PARTIAL, SLIDING
from roots_compress.models.ops.moe import Moe
from roots_compress.models.spec import ModelSpec

SHARED, PER_LAYER, CAP = (
    "attention.shared_kv_layers",
    "embedding_length_per_layer_input",
    "final_logit_softcapping",
)
NARROW, NARROW_VALUES = "attention.key_length_swa", "attention.value_length_swa"
TURNED, BASE = "rope.dimension_count_swa", "rope.freq_base_swa"
GEMMA4_KEYS = frozenset(
    {
        SHARED, PER_LAYER, CAP, NARROW, NARROW_VALUES, TURNED, BASE, WINDOW, PATTERN, EXPERTS, CHOSEN,
        EXPERT_CHANNELS,
    }
)  # fmt: skip
BESIDE = (
    *("ffn_gate_up_exps.weight", "ffn_down_exps.weight", "ffn_gate_inp.weight", "ffn_gate_inp.scale"),
    *("ffn_down_exps.scale", "pre_ffw_norm_2.weight"),
)
"""What makes the experts, in the order that `experts_beside` takes."""
BESIDE_NAMES = {
    "mlp_post_norm": "post_ffw_norm_1",
    "moe_post_norm": "post_ffw_norm_2",
    "moe_joint_norm": "post_ffw_norm",
}


def gemma4_names(spec: ModelSpec) -> Mapping[str, str]:
    """Return the names of a layer's norms, which differ beside experts."""
    return BESIDE_NAMES if any(isinstance(op, Moe) for _, op in spec.blocks()) else {}


def gemma4_experts(spec: ModelSpec) -> Sequence[Computed]:
    """Return the place of each layer's experts."""
    return experts_beside(spec, BESIDE, "blk")


def gemma4_positions(metadata: Metadata, head_dim: int) -> Config:
    """Return the positions of both kinds of layers: factors so large that nothing turns leave channels out.

    Raises:
        InputError: the factors are others than 1 for the first and endless ones for the rest.
    """
    theta, tensors = metadata.positive("rope.freq_base", 10000.0), metadata.model.tensors
    full = {"rope_type": "default", "rope_theta": theta}
    if FREQUENCIES in tensors:
        factors = factors_in(FREQUENCIES, tensors[FREQUENCIES], head_dim // 2)
        turned = int((factors == 1).sum())
        if not (factors[:turned] == 1).all() or not (factors[turned:] > 1e20).all():
            metadata.refuse("rope.freq_base", f"has the factors {FREQUENCIES!r}, which are not Gemma 4's")
        full = {"rope_type": "proportional", PARTIAL: 2 * turned / head_dim, "rope_theta": theta}
    sliding = {"rope_type": "default", "rope_theta": metadata.positive(BASE, theta)}
    return {"rope_parameters": {FULL: full, SLIDING: sliding}}


def gemma4_settings(metadata: Metadata, config: Config) -> Config:
    """Return the configuration of a Gemma 4."""
    slides, narrow = metadata.flags(PATTERN, 6), metadata.number(NARROW)
    for key in (NARROW_VALUES, TURNED):
        metadata.agree(key, narrow)
    metadata.agree("rope.dimension_count", config["head_dim"])
    groups, widths = metadata.numbers("attention.head_count_kv"), metadata.numbers("feed_forward_length")
    shared = metadata.get(SHARED) or 0
    wide = widths != widths[:1] * metadata.layers
    if wide and widths != _widths(widths[0], metadata.layers, shared):
        metadata.refuse(
            "feed_forward_length", f"is {widths!r:.100}; the last layers' may be twice the others'"
        )
    usual = next((count for count, each in zip(groups, slides, strict=True) if each), groups[0])
    by_layer = {
        str(index): {"head_dim": narrow if each else config["head_dim"], "num_key_value_heads": count}
        for index, (each, count) in enumerate(zip(slides, groups, strict=True))
    }
    own = range(metadata.layers - shared)
    names = [f"blk.{index}.attn_v.weight" for index in own if not slides[index]]
    found = {
        **config,
        "head_dim": narrow,
        "num_key_value_heads": usual,
        "per_layer_config": by_layer,
        "attention_k_eq_v": bool(names) and all(name not in metadata.model.tensors for name in names),
        "sliding_window": metadata.number(WINDOW),
        "layer_types": layer_types(slides),
        "num_kv_shared_layers": shared,
        "use_double_wide_mlp": wide,
        "hidden_size_per_layer_input": metadata.get(PER_LAYER) or 0,
        "vocab_size_per_layer_input": config["vocab_size"],
        "final_logit_softcapping": metadata.factor(CAP, 0.0) or None,
        "enable_moe_block": bool(metadata.get(EXPERTS)),
    }
    if metadata.get(EXPERTS):
        numbers = {"experts": EXPERTS, "chosen": CHOSEN, "channels": EXPERT_CHANNELS}
        found |= {MOE[ours]: metadata.number(key) for ours, key in numbers.items()}
    return found


def _widths(first: int, layers: int, shared: int) -> list[int]:
    """Return the widths of feed-forward blocks, twice the first in layers that read keys of others."""
    return [first] * (layers - shared) + [2 * first] * shared
