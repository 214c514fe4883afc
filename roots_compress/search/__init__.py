"""Search for the stages that serve a recipe's gates best: what to try, in which order, and what to choose."""
