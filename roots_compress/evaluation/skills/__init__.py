"""Skills of a model that writes text: checks made from held-out text, and tasks of lm-eval."""
