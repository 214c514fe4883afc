"""Pegasus: BART with norms before the blocks, and with positions of sines and cosines."""

from __future__ import annotations

from roots_compress.families.bart import Form, bart_family
from roots_compress.families.transforms import sines

FAMILY = bart_family(
    "pegasus",
    "PegasusForConditionalGeneration",
    Form(pre_norm=True, embed_norm=False, unread=0, sines=sines, start=0),
    (
        {},
        {"scale_embedding": True, "decoder_start_token_id": 0},
        {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3},
        {"encoder_attention_heads": 2, "decoder_ffn_dim": 52, "d_model": 40, "decoder_attention_heads": 5},
    ),
)
