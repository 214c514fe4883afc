"""A copy that shares its weights with the model until they are replaced."""

from __future__ import annotations

import pytest
import torch

from roots_compress.models.resizing import keep_units
from roots_compress.models.spec import Place
from roots_compress.models.working_copy import part_with, sharing_copy
from tests.tiny import tiny_model


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
