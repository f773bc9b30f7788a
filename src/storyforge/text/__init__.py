"""Pure functions on text: no torch, no network, no files."""
