"""Importers: one table of configuration keys, names and transforms for each family of checkpoints."""
