"""A copy that shares its weights with the model until they are replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.models.device import Precision, autocast
from roots_compress.models.heads import RootsWithHead
from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Place
from roots_compress.models.working_copy import as_autocast_reads, part_with, sharing_copy
from tests.families.sources import each_family, save_source, source_model
from tests.tiny import tiny_model, tiny_tokens


@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_is_cut_alone_and_shares_the_rest_until_it_parts(tied: bool) -> None:
    model = tiny_model(tie_word_embeddings=tied)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = sharing_copy(model)
    keep_units(twin, Place(0, "mlp"), "mlp_channels", list(range(16)))
    assert twin.model.layers[0].mlp.up_proj.weight.shape[0] == 16
    assert twin.model.layers[1].mlp.up_proj.weight is model.model.layers[1].mlp.up_proj.weight
    part_with(twin, model)
    assert twin.lm_head is not None
    assert (twin.lm_head.weight is twin.model.embed_tokens.weight) == tied
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_copy_in_half_precision_gives_the_bits_of_autocast(tied: bool, precision: Precision) -> None:
    model = tiny_model(tie_word_embeddings=tied).eval()
    copy = as_autocast_reads(model, precision)
    assert_same_bits(model, copy, precision)
    whole, held = (sum(p.nbytes for p in each.parameters()) for each in (model, copy))
    table = model.model.embed_tokens.weight
    halved = whole - table.nbytes - sum(p.nbytes for p in model.parameters() if p.ndim == 1)
    assert held == whole - halved // 2
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert as_autocast_reads(model, precision, replace=True) is model
    assert sum(p.nbytes for p in model.parameters()) == held


@pytest.mark.slow
@pytest.mark.parametrize("family", each_family())
def test_of_every_decoder(family: str, tmp_path: Path) -> None:
    model = load_checkpoint(save_source(source_model(family), tmp_path)).model.eval()
    assert_same_bits(model, as_autocast_reads(model, "bf16"), "bf16")


def assert_same_bits(model: RootsWithHead, copy: RootsWithHead, precision: Precision) -> None:
    tokens = tiny_tokens(2, 24) % model.config.vocab_size
    with torch.no_grad(), autocast("cpu", precision):
        assert torch.equal(copy(tokens).logits, model(tokens).logits)
