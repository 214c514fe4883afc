"""Metrics in; tables, Markdown, HTML, comparisons and gates out."""
