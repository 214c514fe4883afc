"""What a run will take, before it starts: shapes, bytes, time, memory and disk."""
