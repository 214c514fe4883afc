"""The run folder: stages committed whole or not at all, and what is needed to know when one may be reused."""
