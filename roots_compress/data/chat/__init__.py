"""Conversations as text: the formats of turns that models are trained on."""
