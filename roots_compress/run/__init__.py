"""The run folder: stages committed completely or not at all, and the keys that decide their reuse."""
