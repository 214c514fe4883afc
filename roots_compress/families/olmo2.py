"""OLMo 2: norms after each block instead of before it, and of all queries and all keys of a token at once."""

from __future__ import annotations

from functools import partial

from roots_compress.families.base import Family
from roots_compress.families.decoder import read_decoder
from roots_compress.families.decoder_config import write_decoder
from roots_compress.families.decoder_tensors import decoder_rules
from roots_compress.models.ops.attention import QkNorm

NORM_NAMES = {
    "self_attn_post_norm": "post_attention_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


read_olmo = partial(
    read_decoder,
    qk_norm=QkNorm(over="projection"),
    norms=("post_norm",),
    null_kv_heads=True,
    whole_heads=True,
    context=2048,
    eps=1e-5,
)
olmo_rules = partial(decoder_rules, names=NORM_NAMES)
FAMILY = Family(
    "olmo2",
    "Olmo2ForCausalLM",
    read_olmo,
    partial(write_decoder, attention_bias=True),
    olmo_rules,
    variants=({}, {"num_key_value_heads": 1, "tie_word_embeddings": True, "attention_bias": True}),
)
