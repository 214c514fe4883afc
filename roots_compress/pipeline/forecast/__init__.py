"""Forecasts of a run before it starts: shapes, bytes, time, memory and disk."""
