"""The figures of one artifact: quality through its task, speed, size and memory."""
