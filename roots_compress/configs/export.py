"""Settings of the ONNX graph."""

from __future__ import annotations

from roots_compress.configs.base import PositiveFloat, Settings


class ExportConfig(Settings):
    """How a checkpoint becomes an ONNX graph, and how closely the two must agree."""

    portable: bool = False
    """Write standard ONNX operators wherever there are some, instead of ONNX Runtime's faster own."""
    tolerance: PositiveFloat = 1e-3
    """Largest difference between the logits of checkpoint and graph, relative to the largest logit."""
