"""Trains the tuned writer further on pairs of its own texts, and stops where it would lose what it can do."""
