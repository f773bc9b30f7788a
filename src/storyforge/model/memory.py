"""When memory runs out: how that is told from other errors, and a batch in halves."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import OutOfMemoryError

from storyforge.core.errors import UserError

Row, Result = TypeVar("Row"), TypeVar("Result")


def out_of_memory(error: Exception) -> bool:
    """Accelerate's test knows the messages of RuntimeErrors on every device, but for cuBLAS's."""
    if isinstance(error, OutOfMemoryError | MemoryError) or should_reduce_batch_size(error):
        return True
    return isinstance(error, RuntimeError) and "STATUS_ALLOC_FAILED" in str(error)


def halving(rows: Sequence[Row], results: Callable[[Sequence[Row]], list[Result]]) -> list[Result]:
    """What `results` gives for these rows; where memory does not hold them together, for each half of them.

    UserError where it does not hold one alone.
    """
    try:
        return results(rows)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
    # Outside `except`: the error holds the tensors of what failed.
    if len(rows) == 1:
        raise UserError(
            "out of memory with a single text: close other programs, take a smaller base, or on CUDA set "
            "model.quantization: nf4"
        )
    clear_device_cache(garbage_collection=True)
    half = len(rows) // 2
    return halving(rows[:half], results) + halving(rows[half:], results)
