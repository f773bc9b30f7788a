"""Work shared out to processes: in order, not far ahead, and whole although processes are killed."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import tasks

from storyforge.core import workers
from storyforge.core.errors import UserError
from storyforge.core.workers import AHEAD, running


def named(number: int) -> str:
    return f"item {number}"


def shared(task, items, processes, named):
    with running(processes) as run:
        yield from run(task, items, named)


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order_and_items_are_not_read_far_ahead(processes):
    read = []

    def items():
        for number in range(100):
            read.append(number)
            yield number

    for count, result in enumerate(shared(tasks.squared, items(), processes, named)):
        assert result == count**2
        assert len(read) <= count + AHEAD * processes
    assert len(read) == 100


def test_nothing_to_do_is_done():
    assert list(shared(tasks.squared, [], 2, named)) == []


def test_what_a_killed_process_had_is_done_again(tmp_path):
    for number in (0, 5, 6, 39):
        (tmp_path / str(number)).touch()
    items = [(str(tmp_path), number) for number in range(40)]
    assert list(shared(tasks.killed_once, items, 2, str)) == list(range(40))
    assert not list(tmp_path.iterdir())


def test_an_item_that_kills_every_process_is_named_and_no_other():
    done = []
    with pytest.raises(
        UserError, match=r"^item 7: .* killed 3 times .*: free memory, or set `workers` lower"
    ) as raised:
        done.extend(shared(tasks.killed_at_seven, range(40), 2, named))
    assert "\n" not in str(raised.value)


def test_one_pool_does_several_tasks_and_one_that_was_left_in_the_middle():
    with running(2) as run:
        found = set(run(tasks.process, range(20), named))
        assert next(run(tasks.squared, range(1000), named)) == 0
        assert set(run(tasks.process, range(20), named)) <= found | set(run(tasks.process, range(20), named))
        assert len(found) <= 2


def test_an_error_of_the_task_is_its_own():
    with pytest.raises(TypeError):
        list(shared(tasks.squared, ["text"], 2, named))


def test_an_error_does_not_wait_for_what_the_others_are_at():
    start = time.monotonic()
    with pytest.raises(UserError, match="file 0: mend it"):
        list(shared(tasks.mistaken_or_silent, range(10), 2, named))
    assert time.monotonic() - start < tasks.SILENT_S


@pytest.mark.skipif(not hasattr(workers.os, "sched_getaffinity"), reason="this system gives a process all")
def test_as_many_processors_as_the_process_was_given(monkeypatch):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda process: {3, 8, 9})
    monkeypatch.setattr(workers.os, "cpu_count", lambda: 128)
    assert workers.processors() == 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_processes_end_with_a_parent_that_is_killed(tmp_path):
    (tmp_path / "pool.py").write_text(
        "import tasks\nfrom storyforge.core.workers import running\n"
        "if __name__ == '__main__':\n"
        "    with running(2) as run:\n"
        "        for pid in run(tasks.process, range(10_000), str):\n            print(pid, flush=True)\n"
    )
    env = {"PYTHONPATH": ":".join(map(str, (Path(tasks.__file__).parent, *sys.path)))}
    process = subprocess.Popen([sys.executable, "pool.py"], cwd=tmp_path, stdout=-1, text=True, env=env)
    found = {int(process.stdout.readline()) for _ in range(20)}
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in found) and time.monotonic() < end:
        time.sleep(0.05)
    assert found and not any(Path(f"/proc/{pid}").exists() for pid in found)
