"""mBART: BART with norms before the blocks."""

from __future__ import annotations

from roots_compress.families.bart import SHAPES, Form, bart_family

FAMILY = bart_family(
    "mbart",
    "MBartForConditionalGeneration",
    Form(pre_norm=True, embed_norm=True, unread=2, sines=None, start=None),
    (
        {},
        {"scale_embedding": True, "decoder_start_token_id": 0},
        {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3},
        *SHAPES,
    ),
)
