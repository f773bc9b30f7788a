"""Llama and its like in bfloat16 on a CPU, written out in PyTorch and C; it knows tokens and no story."""
