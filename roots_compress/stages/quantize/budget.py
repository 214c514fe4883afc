"""Checks the least bytes of a model in 4 bits against its budget."""

from __future__ import annotations

from typing import get_args

from roots_compress.configs.quantize import GroupSetting, QuantizeConfig
from roots_compress.errors import GateMissedError, Key
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.quantized import Format, matrix_bytes
from roots_compress.models.spec import EMBEDDING, HEAD
from roots_compress.stages.quantize.groups import group_size_of


def check_budget(model: RootsWithHead, config: QuantizeConfig) -> None:
    """Refuse a `max_bytes` that no choice of layers can meet.

    Raises:
        GateMissedError: the model takes more with all layers in 4 bits.
    """
    least = least_bytes(model, config)
    if config.max_bytes is not None and config.max_bytes < least:
        raise GateMissedError(
            f"the model takes {least:,} bytes with every layer in 4 bits, "
            f"and at most {config.max_bytes:,} are asked for",
            where=Key("max_bytes"),
            remedy=f"Allow {least:,} bytes,{_other_groups(model, config)} or prune the model first.",
        )


def _other_groups(model: RootsWithHead, config: QuantizeConfig) -> str:
    """Return advice on the group size with the fewest bytes; empty if it is already set.

    Larger groups have fewer scales, but more padding in the rows of narrow matrices.
    """
    sizes = {
        size: least_bytes(model, config.model_copy(update={"group_size": size}))
        for size in get_args(GroupSetting)
    }
    best = min(sizes, key=lambda size: (sizes[size], size != config.group_size))
    if best == config.group_size:
        return ""
    return f" set group_size to {best}, with which it takes {sizes[best]:,},"


def least_bytes(model: RootsWithHead, config: QuantizeConfig) -> int:
    """Return the bytes of all tensors with the layers' matrices in 4 bits, and the table and head in 8."""
    stored, matrices, size = model.state_dict().keys(), model.config.spec.matrices(), 0
    # A tied table is one parameter, under its first name.
    for name, tensor in model.named_tensors().items():
        owner = name.removesuffix(".weight")
        if owner in matrices:
            chosen: Format = "w8" if owner in (EMBEDDING, HEAD) else "w4"
            rows, width = tensor.shape
            size += matrix_bytes(rows, width, chosen, group_size_of(config.group_size, chosen, width))
        elif name in stored:
            size += tensor.numel() * tensor.element_size()
    if model.config.tie_word_embeddings:
        size += 4 * model.config.table_width  # the table's lookup_scale
    return size + (cache_step_bytes(model) if config.cache == "int8" else 0)


def cache_step_bytes(model: RootsWithHead) -> int:
    """Return the bytes of an int8 cache's steps: a float32 for each channel of the keys and the values."""
    return sum(2 * 4 * each.kv_heads * each.head_dim for each in model.config.spec.attentions())
