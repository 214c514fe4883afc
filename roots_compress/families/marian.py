"""Translators of BART's shape with positions of sines and cosines: Marian, M2M100 and NLLB."""

from __future__ import annotations

from collections.abc import Sequence

from roots_compress.families.bart import SHAPES, Form, bart_family, read_bart
from roots_compress.families.switches import Switches
from roots_compress.families.transforms import Tensor, sines
from roots_compress.models.spec import ModelSpec

FORM = Form(pre_norm=False, embed_norm=False, unread=0, sines=sines, start=58_100)


def _read_marian(switches: Switches) -> ModelSpec:
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
    _read_marian,
)
"""Marian: BART without norms of the embeddings, and with positions of sines and cosines."""


PADDING = 1
"""Of all models of the family; positions are counted from the place after it."""


def _sines(shape: Sequence[int]) -> Tensor:
    """Return a table of positions as tensor2tensor has it: the last frequency is 1 / 10,000."""
    import torch

    rows, width = shape
    half = width // 2
    step = torch.log(torch.tensor(10_000.0)) / (half - 1)
    place_P1 = torch.arange(rows, dtype=torch.float32)[:, None] + PADDING + 1
    angles = place_P1 * torch.exp(torch.arange(half, dtype=torch.float32) * -step)
    table = torch.cat((angles.sin(), angles.cos()), dim=1)
    return torch.nn.functional.pad(table, (0, width - table.shape[1]))


M2M = Form(
    pre_norm=True, embed_norm=False, unread=0, sines=_sines, start=2, bias=False, act="relu", scaled=True
)


def _read_m2m_100(switches: Switches) -> ModelSpec:
    if switches.said("pad_token_id", PADDING) != PADDING:
        switches.refuse(f"pad_token_id must be {PADDING}, after which positions begin")
    return read_bart(switches, M2M)


M2M_100 = bart_family(
    "m2m_100",
    "M2M100ForConditionalGeneration",
    M2M,
    (
        {},
        {"scale_embedding": False, "decoder_start_token_id": 0},
        {"activation_function": "gelu", "encoder_layers": 1, "decoder_layers": 3},
        *SHAPES[3:],
    ),
    _read_m2m_100,
)
"""M2M100 and NLLB: BART with norms before the blocks, and positions of sines and cosines."""
