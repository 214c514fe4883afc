"""A checkpoint as an ONNX graph with a KV cache, checked against the checkpoint before it is handed over."""
