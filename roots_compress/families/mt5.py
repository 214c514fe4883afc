"""mT5: T5 with a gated feed-forward block, and logits without a factor."""

from __future__ import annotations

from roots_compress.families.t5 import t5_family

FAMILY = t5_family(
    "mt5",
    "MT5ForConditionalGeneration",
    (
        {},
        {"tie_word_embeddings": False, "d_ff": 20},
        {"feed_forward_proj": "gated-silu", "num_layers": 1, "num_decoder_layers": 3},
        {"feed_forward_proj": "relu", "num_heads": 2, "d_kv": 12},
        {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 9},
        {"layer_norm_epsilon": 0.01, "tie_word_embeddings": False, "num_heads": 1},
        {"decoder_start_token_id": 5, "num_layers": 3, "num_decoder_layers": 1},
        {"feed_forward_proj": "gelu", "d_kv": 16},
    ),
    proj="gated-gelu",
    scaled=False,
)
