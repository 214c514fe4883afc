"""Realistic silent bugs, planted one at a time into a copy of the package, and what catches each."""
