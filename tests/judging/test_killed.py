"""kill -9 at any moment: the next run repeats no request whose reply was kept, and counts the others."""

import multiprocessing
import os
import random
import signal
import time

import pytest
from judges import answered_late, questions, run

CALLS = 24
start = multiprocessing.get_context("forkserver")
start.set_forkserver_preload(["judges", "anthropic"])


@pytest.fixture
def begun(service, store):
    """Starts a run in a process of its own; the store keeps what it did."""
    processes = []

    def begin(batch=False):
        process = start.Process(target=run, args=(service.url, store, CALLS, batch))
        process.start()
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.join()


@pytest.mark.parametrize("paid", [False, True])
def test_a_request_under_way_when_it_is_killed_is_counted(ask, service, usage, begun, paid):
    killed = []

    def kill(judges, request, asked):
        killed.append(os.kill(process.pid, signal.SIGKILL))
        return paid

    service.faults = [answered_late] * 9 + [kill]
    process = begun()
    process.join()
    assert killed and process.exitcode == -9
    assert all(answer.value for answer in ask(questions(CALLS), workers=4))
    twice = len(service.paid) - CALLS
    assert twice <= usage(questions(CALLS))["unsettled"] <= 4  # one a worker


@pytest.mark.parametrize("batch", [False, True])
def test_killed_at_twenty_random_moments(ask, service, usage, begun, batch):
    expected = ask(questions(CALLS), path=ask.elsewhere, batch=batch)
    service.paid.clear()
    service.polls_until_ended = 3
    pick = random.Random(1604)
    for _ in range(20):
        service.faults = [] if batch else [answered_late] * CALLS
        process = begun(batch)
        process.join(pick.uniform(0, 0.4))
        process.kill()
        process.join()
    service.faults = []
    assert ask(questions(CALLS), workers=4, batch=batch) == expected
    twice = len(service.paid) - len(set(service.paid))
    assert twice <= usage(questions(CALLS), batch=batch)["unsettled"]
    if batch:
        assert len(service.batches) <= 2 + usage(questions(CALLS), batch=True)["unsettled"] / CALLS


def test_killed_while_it_waits_for_a_batch_the_next_run_waits_for_the_same(ask, service, usage, begun):
    service.polls_until_ended = 10**9
    process = begun(batch=True)
    while not service.polls:
        time.sleep(0.01)
    process.kill()
    process.join()
    service.polls_until_ended = 1
    assert len(ask(questions(CALLS), batch=True)) == CALLS
    assert len(service.batches) == 1 and len(service.paid) == CALLS
    assert usage(questions(CALLS), batch=True)["unsettled"] == 0
