"""The recipe: its schema, its YAML, and where in a file a fault lies."""
