"""The figures of one artifact: perplexity, speed, size and memory."""
