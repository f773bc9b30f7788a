"""Drafts of the tuned writer, and pairs of a better and a worse text made of them."""
