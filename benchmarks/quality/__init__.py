"""What compression costs in perplexity: the tables of docs/quality.md."""
