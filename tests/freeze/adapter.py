"""The only lines of the record that know where the package keeps things; all else goes by its commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from roots_compress.checkpoints.checkpoint import load_checkpoint
from roots_compress.runtime.onnx.engine import OnnxEngine

TOKENS = np.random.default_rng(0).integers(3, 290, (2, 24))
"""Ids that every recorded model has."""


def checkpoint_logits(folder: Path) -> NDArray[np.float32]:
    """Return a checkpoint's logits for fixed tokens, by torch."""
    torch.set_num_threads(1)
    model = load_checkpoint(folder).model
    with torch.no_grad():
        logits: NDArray[np.float32] = model(torch.from_numpy(TOKENS)).logits.float().numpy()
    return logits


def graph_logits(folder: Path) -> NDArray[np.float32]:
    """Return a graph's logits for the same tokens, by ONNX Runtime."""
    return np.asarray(OnnxEngine.load(folder, threads=1, provider="cpu").logits(TOKENS), np.float32)
