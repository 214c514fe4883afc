"""The `distill` stage: teach a smaller student to match a teacher."""
