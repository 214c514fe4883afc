"""Checkpoints on disk: inspected by their headers, loaded, saved; tokenizers."""
