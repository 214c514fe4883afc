"""Folders and GGUF files as users have them: what this package makes of them against their own libraries."""
