"""Marian: BART without norms of the embeddings, and with positions of sines and cosines."""

from __future__ import annotations

from roots_compress.families.bart import Form, bart_family, read_bart
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import sines
from roots_compress.models.spec import ModelSpec

FORM = Form(pre_norm=False, embed_norm=False, unread=0, sines=sines, start=58_100)


def _read(switches: Switches) -> ModelSpec:
    if not switches.flag("share_encoder_decoder_embeddings", True):
        switches.refuse("share_encoder_decoder_embeddings is false; the stacks must share one vocabulary")
    # null stands for the encoder's.
    rows = switches.optional_number("decoder_vocab_size")
    spec = read_bart(switches, FORM)
    if rows not in (None, spec.embeddings.vocabulary):
        switches.refuse(f"decoder_vocab_size is {rows}; the stacks must share one vocabulary")
    return spec


MARIAN = bart_family(
    "marian",
    "MarianMTModel",
    FORM,
    (
        {},
        {"scale_embedding": True, "activation_function": "swish"},
        {"activation_function": "relu", "encoder_layers": 1, "decoder_layers": 3},
        {"encoder_attention_heads": 2, "decoder_ffn_dim": 52, "d_model": 40, "decoder_attention_heads": 5},
    ),
    _read,
)
