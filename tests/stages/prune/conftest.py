"""What tests of pruning share."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 whatever processor runs the tests: they compare with what is computed so."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
