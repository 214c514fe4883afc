"""Corpora made of sources: filtered, without duplicates, mixed and shuffled into shards."""
