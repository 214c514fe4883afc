"""Settings of the ONNX graph."""

from __future__ import annotations

from roots_compress.configs.base import PositiveFloat, Settings


class ExportConfig(Settings):
    """How a checkpoint becomes an ONNX graph, and how closely the two must agree."""

    portable: bool = False
    """Write standard ONNX operators wherever they exist, instead of ONNX Runtime's own, faster ones."""
    tolerance: PositiveFloat = 1e-3
    """Largest difference between the logits of checkpoint and graph, relative to the largest logit."""
