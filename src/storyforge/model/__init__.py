"""Everything that needs torch: loading, encoding, likelihood, training, writing."""
