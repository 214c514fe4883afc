"""Blocks as ONNX operators, one emitter each."""
