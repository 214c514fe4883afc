"""GGUF files: their tensors and their tokenizers."""
