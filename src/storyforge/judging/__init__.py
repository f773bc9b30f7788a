"""Paid calls to language models: asked once, kept for good, never dearer than allowed."""
