"""Language models that can be served: a torch engine, an ONNX Runtime engine, and generation over both."""
