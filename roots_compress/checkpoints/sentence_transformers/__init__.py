"""Folders of sentence-transformers: their modules, and the settings beside these."""
