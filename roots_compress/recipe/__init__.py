"""Recipes: the schema, the YAML they are written in, and their loading with file and line in every error."""
