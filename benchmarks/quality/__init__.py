"""What compression costs in perplexity: the tables of docs/figures/quality.md."""
