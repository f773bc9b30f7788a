"""Stage 7: all writers answer held-out prompts, and a judge compares the answers by the principles."""
