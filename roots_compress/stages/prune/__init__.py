"""The prune stage: scores, plan, cut, refit, recovery."""
