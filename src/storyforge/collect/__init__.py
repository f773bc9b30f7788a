"""Stage 1: stories as their sources give them."""
