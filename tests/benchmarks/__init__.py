"""Tests of the benchmarks, as far as they need no other tool."""
