"""Every family that can be read and written, by its `model_type`."""

from __future__ import annotations

from roots_compress.families import (
    bert,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    llama,
    mistral,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
)
from roots_compress.families.base import Family

FAMILIES: dict[str, Family] = {
    module.FAMILY.model_type: module.FAMILY
    for module in (llama, mistral, qwen2, qwen3, gemma, gpt2, gemma2, gemma3, phi3, qwen3_moe, bert)
}
