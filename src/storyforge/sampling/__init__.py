"""Text from a writer, reproducible by seed."""
