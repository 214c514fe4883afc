"""LoRA adapters: what their files say, and how they change the weights of their bases."""
