"""A worker that is killed, once or each time, and what the consumer sees of it."""

from functools import partial

import pytest
from tasks import dies, double, refuses

from storyforge.core.errors import UserError
from storyforge.preprocess.pool import AHEAD, shared_out


@pytest.mark.parametrize("workers", [1, 2])
def test_answers_come_in_the_order_of_the_items(workers):
    assert list(shared_out(double, range(40), workers)) == [2 * number for number in range(40)]
    assert list(shared_out(double, [], workers)) == []


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("at", [0, 9, 29])
def test_a_killed_worker_costs_no_answer_and_no_order(tmp_path, at, times):
    task = partial(dies, at=at, times=times, notes=str(tmp_path))
    assert list(shared_out(task, range(30), 2)) == [2 * number for number in range(30)]
    assert len(list(tmp_path.iterdir())) == times


def test_what_kills_its_worker_each_time_is_an_error_after_all_answers_before_it(tmp_path):
    answers = []
    with pytest.raises(UserError, match="a worker was killed 3 times over the same texts"):
        for answer in shared_out(partial(dies, at=9, times=9, notes=str(tmp_path)), range(30), 2):
            answers.append(answer)
    assert answers == [2 * number for number in range(9)]
    assert len(list(tmp_path.iterdir())) == 3


def test_no_more_items_are_taken_than_workers_need():
    taken = []
    answers = shared_out(double, (taken.append(number) or number for number in range(1000)), 2)
    for number in range(5):
        assert next(answers) == 2 * number
    assert len(taken) <= 5 + 2 * AHEAD
    answers.close()


def test_what_the_task_raises_reaches_the_consumer():
    with pytest.raises(UserError, match="0 is no story"):
        list(shared_out(refuses, range(3), 2))


def test_what_the_consumer_raises_ends_the_pool():
    with pytest.raises(KeyError):
        for number in shared_out(double, range(1000), 2):
            raise KeyError(number)
