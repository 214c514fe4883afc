"""Malformed and hostile inputs, made by code, and what the command line must do with each."""
