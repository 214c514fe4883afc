"""Distil, prune and quantize a trained language model into a small ONNX graph."""

__version__ = "0.1.0"
