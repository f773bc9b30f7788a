"""The tuned writer for other programs: merged weights, GGUF, chat templates."""
