"""Tasks of a stage, run by whom engine.yaml says: processes of this machine, or the nodes of a Ray cluster.

A task is a function of its item alone, and may be run anywhere, twice, or again: whoever runs it, the results
are the same.
"""

from collections.abc import Callable, Iterable, Iterator

from storyforge.core import on_ray, workers
from storyforge.core.engine_file import Engine
from storyforge.core.workers import Item, Result


def shared(
    task: Callable[[Item], Result], items: Iterable[Item], engine: Engine, named: Callable[[Item], str]
) -> Iterator[Result]:
    """What `task` makes of each item, in order; `task`, items and results are pickled.

    Few items are taken before their results are asked for: memory stays flat. What a killed process had is
    given out again. UserError, with the item's name, where an item has ended several so.
    """
    if engine.kind == "ray":
        return on_ray.shared(task, items, on_ray.place(engine.address), engine.workers, named)
    return workers.shared(task, items, engine.processes, named)
