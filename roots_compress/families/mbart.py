"""mBART: BART with norms before the blocks."""

from __future__ import annotations

from roots_compress.families.bart import Form, bart_family

FAMILY = bart_family(
    "mbart",
    "MBartForConditionalGeneration",
    Form(pre_norm=True, embed_norm=True, unread=2, sines=None, start=None),
    (
        {},
        {"scale_embedding": True, "decoder_start_token_id": 0},
        {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3},
        {"activation_function": "gelu_new", "encoder_layers": 3, "decoder_layers": 1},
        {"encoder_attention_heads": 2, "decoder_attention_heads": 8},
        {"encoder_ffn_dim": 20, "decoder_ffn_dim": 52},
        {"d_model": 40, "encoder_attention_heads": 5},
        {"max_position_embeddings": 24, "activation_function": "silu", "decoder_attention_heads": 1},
    ),
)
