"""What good fiction is asked to be: the constitution, and which of its rules a machine can check."""
