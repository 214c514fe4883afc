"""Read and write sentence-transformers checkpoints: their modules and their settings."""
