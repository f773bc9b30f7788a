"""Stage 2: stories cleaned, filtered, deduplicated and split into prompt–story pairs."""
