"""The families as GGUF files hold them."""
