"""The base model and its adapter: machine, loading, chat format, tokens, likelihood."""
