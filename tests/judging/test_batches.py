"""Calls in message batches: in any order, with gaps, over kills, each paid for once."""

import judges
import pytest
from judges import KEY, error, message, questions, replies

from storyforge.core.errors import UserError
from storyforge.judging.calls import Answer
from storyforge.judging.retries import ATTEMPTS
from storyforge.judging.store import opened

ANSWERS = [Answer({"winner": each}) for each in "ABA"]
EXPIRED = {"type": "expired"}
CANCELED = {"type": "canceled"}


def errored(kind, said="it is so"):
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": said}}}


def test_results_are_told_apart_by_their_keys_whatever_their_order(ask, service, usage):
    """The stand-in gives the last one first."""
    assert ask(batch=True) == ANSWERS
    (requests,) = service.batches.values()
    assert [each["params"]["messages"][0]["content"] for each in requests] == [
        "Texts ",
        "Texts x",
        "Texts xx",
    ]
    assert all(len(each["custom_id"]) == 64 for each in requests) and not service.asked
    assert usage(batch=True)["dollars"] == 0.0105  # half of three times 0.7 cents


def test_a_batch_is_asked_for_until_it_has_ended(ask, service):
    service.polls_until_ended = 4
    assert ask(batch=True) == ANSWERS
    assert len(service.batches) == 1 and len(service.polls) >= 4


@pytest.mark.parametrize("result", [EXPIRED, CANCELED, errored("overloaded_error"), errored("api_error")])
def test_what_expired_or_failed_goes_again_and_nothing_else_does(ask, service, usage, result):
    service.results = {"Texts x": [result]}
    assert ask(batch=True) == ANSWERS
    assert [len(requests) for requests in service.batches.values()] == [3, 1]
    assert len(service.paid) == 3 and usage(batch=True)["unsettled"] == 0


def test_what_expires_again_and_again_ends_the_run(ask, service):
    service.results = {"Texts x": [EXPIRED] * 9}
    with pytest.raises(UserError, match="1 calls expired or failed in 3 batches: run again later"):
        ask(batch=True)
    service.results = {}
    assert ask(batch=True) == ANSWERS
    assert len(service.paid) == 3


def test_a_wrong_request_ends_the_run_once_the_others_are_kept(ask, service, usage):
    service.results = {"Texts x": [errored("invalid_request_error", f"too long for {KEY}")]}
    with pytest.raises(UserError, match=r"refuses a request of batch msgbatch_1: too long for \[key\]"):
        ask(batch=True)
    assert usage(batch=True)["calls"] == 2
    assert ask(batch=True) == ANSWERS and len(service.paid) == 3


def test_a_reply_that_is_no_answer_is_asked_for_once_more_in_another_batch(ask, service):
    refused = {"type": "succeeded", "message": message("no", "refusal")}
    service.results = {"Texts x": [refused, refused], "Texts xx": [refused]}
    assert ask(batch=True) == [ANSWERS[0], Answer(None, "refusal"), ANSWERS[2]]
    assert [len(requests) for requests in service.batches.values()] == [3, 2]


@pytest.mark.parametrize("fault", [error(529), error(429, retry_after="3600")])
def test_a_busy_service_gets_the_batch_later(ask, service, usage, fault):
    service.faults = [fault, fault]
    assert ask(batch=True) == ANSWERS
    assert len(service.batches) == 1 and usage(batch=True)["unsettled"] == 0


def test_a_batch_whose_making_was_not_answered_is_counted_as_perhaps_paid(ask, service, usage):
    service.faults = [judges.reset]
    assert ask(batch=True) == ANSWERS
    assert usage(batch=True)["unsettled"] == 3


def test_a_refused_batch_is_not_sent_again(ask, service, usage):
    service.faults = [error(400, "no batches here")]
    with pytest.raises(UserError, match="no batches here"):
        ask(batch=True)
    assert not service.batches and usage(batch=True)["unsettled"] == 0


@pytest.mark.parametrize("lost", ["unknown", "archived"])
def test_a_batch_whose_results_are_gone_goes_again_and_is_counted(ask, service, usage, lost):
    service.polls_until_ended = 10**9
    service.on_poll = judges.interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(batch=True)
    service.on_poll, service.polls_until_ended = None, 1
    if lost == "unknown":
        service.batches = {"msgbatch_0": []}
    else:
        service.archived = ["msgbatch_1"]
    assert ask(batch=True) == ANSWERS
    assert list(service.batches)[-1] == "msgbatch_2" and usage(batch=True)["unsettled"] == 3


def test_a_batch_under_way_is_waited_for_by_the_next_run(ask, service, store):
    kept_ids = interrupted(ask, service, store)
    assert ask(batch=True) == ANSWERS
    assert list(service.batches) == kept_ids == ["msgbatch_1"] and len(service.paid) == 3
    assert ask.said[-1].startswith("0 calls of claude-sonnet-5-5 in batches")


def test_more_calls_than_the_batch_under_way_has_get_one_of_their_own(ask, service, store):
    interrupted(ask, service, store)
    assert len(ask(questions(5), batch=True)) == 5
    assert [len(requests) for requests in service.batches.values()] == [3, 2]


def interrupted(ask, service, store):
    """A run that ended while it waited for its batch."""
    service.polls_until_ended, service.on_poll = 10**9, judges.interrupt
    with pytest.raises(KeyboardInterrupt):
        ask(batch=True)
    service.polls_until_ended, service.on_poll = 1, None
    with opened(store) as kept:
        return list(kept.batches())


def test_the_limit_cuts_a_batch_short_and_is_never_passed(ask, service, usage):
    """A call of a batch costs at most 0.52 cents here and 0.35 in fact; the estimate says 0.1."""
    calls, cheap = questions(10), {"expected_output_tokens": 100, "batch": True}
    with pytest.raises(UserError, match="are spent or set aside"):
        ask(calls, max_dollars=0.022, **cheap)
    found = [len(requests) for requests in service.batches.values()]
    assert len(found) > 1 and sum(found) < 10
    assert 0.016 < usage(calls, batch=True)["dollars"] <= 0.022
    ask(calls, max_dollars=1, **cheap)
    assert len(service.paid) == 10


def test_a_compatible_server_has_no_batches(ask, service):
    assert ask(provider="openai", batch=True) == ANSWERS
    assert len(service.asked) == 3


def test_a_batch_under_way_is_waited_for_where_the_next_run_wants_none(ask, service, store, usage):
    interrupted(ask, service, store)
    assert len(ask(questions(5), batch=False, workers=2)) == 5
    assert len(service.batches) == 1 and len(service.asked) == 2 and len(service.paid) == 5
    assert usage(questions(5))["unsettled"] == 0


def test_a_reply_of_a_batch_that_cannot_be_read_may_have_been_paid_for(ask, service, usage):
    service.results = {"Texts x": [{"type": "succeeded", "message": {"id": "msg_1"}}]}
    assert ask(batch=True) == ANSWERS
    assert [len(requests) for requests in service.batches.values()] == [3, 1]
    assert usage(batch=True)["unsettled"] == 1


@pytest.mark.parametrize("result", [{"type": "new"}, {"type": "errored"}, {"type": "errored", "error": {}}])
def test_a_result_of_another_form_goes_again(ask, service, result):
    service.results = {"Texts x": [result]}
    assert ask(batch=True) == ANSWERS and len(service.paid) == 3


def test_results_that_cannot_be_read_end_the_run_and_lose_nothing(ask, service, store):
    service.results = {"Texts x": [None] * ATTEMPTS}
    with pytest.raises(UserError, match="a reply that cannot be read .no result in it"):
        ask(batch=True)
    with opened(store) as kept:
        assert list(kept.batches()) == ["msgbatch_1"]


def test_a_batch_without_an_id_may_have_been_paid_for(ask, service, usage):
    service.faults = [replies({})]
    assert ask(batch=True) == ANSWERS and usage(batch=True)["unsettled"] == 3


def test_a_batch_that_does_not_say_how_it_is_is_not_waited_for(ask, service, monkeypatch):
    monkeypatch.setattr(judges.Judges, "_about", lambda self, batch: {"id": batch})
    with pytest.raises(UserError, match="no processing_status in it"):
        ask(batch=True)
