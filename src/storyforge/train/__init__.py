"""Stage 3: a LoRA adapter, trained."""
