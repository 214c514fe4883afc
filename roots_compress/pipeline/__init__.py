"""Carries out a recipe: checks, plans, makes stages, verifies."""
