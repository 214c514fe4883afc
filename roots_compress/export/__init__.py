"""Exports a checkpoint as an ONNX graph with a KV cache, checked against the checkpoint."""
