"""What a model that writes text can do: checks made from held-out text, and tasks of lm-eval."""
