"""The root mean square norm in mixed precision: the same bits as torch's, without its warnings."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from roots_compress.models.norm import RMSNorm
from tests.specs import SPECS
from tests.tiny import tiny_model, tiny_tokens

PRECISIONS = torch.float32, torch.bfloat16, torch.float16


@pytest.fixture
def every_warning() -> Iterator[None]:
    """Let torch repeat the warnings that it gives once in a process."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.parametrize("weight", PRECISIONS, ids=str)
@pytest.mark.parametrize("read", PRECISIONS, ids=str)
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_the_norm_gives_the_bits_of_torch_s(read: torch.dtype, weight: torch.dtype) -> None:
    torch.manual_seed(0)
    ours, theirs = RMSNorm(24, eps=1e-6), nn.RMSNorm(24, eps=1e-6)
    with torch.no_grad():
        theirs.weight.normal_()
        ours.weight.copy_(theirs.weight)
    x = torch.randn(3, 5, 24, dtype=read) * 4
    found, expected = ours.to(weight)(x), theirs.to(weight)(x)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("kind", ["qk-norm", *SPECS])
def test_training_in_bfloat16_gives_no_warning(kind: str, every_warning: None) -> None:
    fields: dict[str, Any] = SPECS.get(kind, {"qk_norm": True})
    model = tiny_model(**fields).train()
    with warnings.catch_warnings(), torch.autocast("cpu", torch.bfloat16):
        warnings.simplefilter("error")
        tokens = tiny_tokens()
        loss = model(tokens, labels=tokens).loss
        loss.backward()
    assert torch.isfinite(loss)
