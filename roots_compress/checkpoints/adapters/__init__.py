"""LoRA adapters: reading their files, and adding them to the weights of their bases."""
