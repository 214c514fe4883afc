"""Every family that can be read and written, by its `model_type`."""

from __future__ import annotations

from roots_compress.families import (
    albert,
    bart,
    bert,
    camembert,
    distilbert,
    electra,
    gemma,
    gemma2,
    gemma3,
    gpt2,
    granite,
    llama,
    marian,
    mistral,
    modernbert,
    mpnet,
    olmo2,
    olmo3,
    pegasus,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    roberta,
    smollm3,
    t5,
    xlm_roberta,
)
from roots_compress.families.base import Family

_MODULES = (
    llama, mistral, qwen2, qwen3, gemma, gpt2, gemma2, gemma3, phi3, qwen3_moe, smollm3, granite, olmo2,
    olmo3, bert, distilbert, roberta, xlm_roberta, camembert, mpnet, electra, albert, modernbert, t5, bart,
    pegasus, marian,
)  # fmt: skip
FAMILIES: dict[str, Family] = {module.FAMILY.model_type: module.FAMILY for module in _MODULES}
