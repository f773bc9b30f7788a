"""What is measured of texts and of numbers by more than one stage; no torch."""
