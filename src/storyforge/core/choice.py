"""Choice by hash: which of many stories are taken depends on their ids and a seed, never on their order."""

import hashlib

HIGHEST_RANK = (1 << 64) - 1


def rank(identity: str, seed: int) -> int:
    """64 bits from id and seed: two of a million stories share one once in 37 million runs."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{identity}".encode(), digest_size=8).digest(), "big")


def sample_seed(prompt: str, sample: int, seed: int) -> int:
    """32 bits for the n-th sample (from 0) of a prompt: other prompts and samples do not change it."""
    return rank(f"{prompt}\0{sample}" if sample else prompt, seed) >> 32
