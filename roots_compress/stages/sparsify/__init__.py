"""Block-sparse attention for a dense checkpoint."""
