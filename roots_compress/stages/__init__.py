"""The stages of a run: checkpoint in, checkpoint out. None imports another."""
