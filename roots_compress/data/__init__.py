"""Text: corpora, tokenizers, packing and held-out windows."""
