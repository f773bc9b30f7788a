"""Stage 4: the base and the tuned writer compared on held-out stories and prompts."""
