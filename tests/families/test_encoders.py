"""What every variant of an encoder's family gives equals what transformers' own classes give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import BertConfig

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.families.registry import FAMILIES
from tests.families.sources import save_source
from tests.tiny import VOCAB_SIZE, tiny_tokens

VARIANTS = [dict(changes) for changes in FAMILIES["bert"].variants]


@pytest.mark.parametrize("changes", VARIANTS, ids=["-".join(map(str, each.values())) for each in VARIANTS])
def test_outputs_equal_transformers(changes: dict[str, Any], tmp_path: Path) -> None:
    fields: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 2,
        **changes,
    }
    architecture = fields.pop("architectures")[0]
    theirs = getattr(transformers, architecture)(BertConfig(**fields)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    ours = load_checkpoint(save_source(theirs, tmp_path)).model
    ids_BT = tiny_tokens(2, 20)
    mask_BT, types_BT = torch.ones_like(ids_BT), torch.zeros_like(ids_BT)
    mask_BT[0, 13:] = 0
    if theirs.config.type_vocab_size > 1:
        types_BT[:, 7:] = 1
    with torch.no_grad():
        expected = theirs(ids_BT, attention_mask=mask_BT, token_type_ids=types_BT)[0]
        found = ours(ids_BT, attention_mask=mask_BT, token_type_ids=types_BT)[0]
    if architecture == "BertModel":
        mean_BW = (expected * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
        expected = torch.nn.functional.normalize(mean_BW)
    elif expected.ndim == 3:
        expected, found = expected[mask_BT.bool()], found[mask_BT.bool()]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
