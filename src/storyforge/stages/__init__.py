"""One file a DVC stage: its params, one function named after it, and main(), whose parameters are files."""
