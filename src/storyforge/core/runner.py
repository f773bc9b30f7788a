"""Tasks of a stage, run by whom engine.yaml says: processes of this machine, or the nodes of a Ray cluster.

A task is a function of its item alone, and may be run anywhere, twice, or again: whoever runs it, the results
are the same.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storyforge.core import on_ray, workers
from storyforge.core.engine_file import Engine
from storyforge.core.workers import Run


@contextmanager
def running(engine: Engine) -> Iterator[Run]:
    """A function of a task, its items and their names: what the task makes of each item, in order.

    Task, items and results are pickled. Few items are taken before their results are asked for: memory stays
    flat. What a killed process had is given out again. UserError, with the item's name, where an item has
    ended several so.
    """
    if engine.kind == "ray":
        by = on_ray.running(on_ray.place(engine.address), engine.workers)
    else:
        by = workers.running(engine.processes)
    with by as run:
        yield run


def everywhere(engine: Engine, task: Callable[[], None]) -> None:
    """While they are `running`, on each node once; one that does not answer is left alone."""
    if engine.kind == "ray":
        on_ray.everywhere(task)
    else:
        task()
