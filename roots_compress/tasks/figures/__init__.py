"""The figures of quality that tasks measure."""
