"""Exported graphs, served by ONNX Runtime."""
