"""Calls sent one by one: each is paid for once, whatever fails, and no more is spent than allowed."""

import json
import sys
import time
from dataclasses import replace

import hub
import judges
import pytest
from judges import KEY, completion, error, message, questions, replies

from storyforge.core.errors import UserError
from storyforge.judging.calls import Answer
from storyforge.judging.params import PRICES
from storyforge.judging.retries import ATTEMPTS, Pause
from storyforge.judging.service import Failed

ANSWERS = [Answer({"winner": each}) for each in "ABA"]
WRONG = {
    "refusal": (message("no", "refusal"), completion("", refusal="I will not")),
    "max_tokens": (message('{"winner"', "max_tokens"), completion('{"winner"', "length")),
    "model_context_window_exceeded": (
        message("", "model_context_window_exceeded"),
        completion("", "model_context_window_exceeded"),
    ),
    "json": (message('{"winner": '), completion('{"winner": ')),
    "schema": (message('{"winner": "C"}'), completion('{"winner": "C"}')),
}
TALKING = completion("") | {"choices": [{"finish_reason": "stop", "message": {"content": [1]}}]}
NESTED = b"[" * 100_000  # more than Python's parser takes
UNREADABLE = [
    judges.reset,
    judges.no_json,
    replies({"type": "message"}),
    replies(TALKING),
    lambda judges, request, asked: hub.send(request, NESTED, {"Content-Type": "application/json"}),
]


def test_answers_come_in_the_order_of_the_calls(ask, service, provider):
    assert ask(questions(12), provider, workers=4) == [Answer({"winner": "AB"[n % 2]}) for n in range(12)]
    assert len(service.paid) == 12


def test_what_was_answered_needs_neither_service_nor_key_again(ask, service, monkeypatch, provider):
    assert ask(provider=provider) == ANSWERS
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    service.key = "another"
    assert ask(provider=provider) == ANSWERS
    assert len(service.asked) == 3


def test_the_same_call_twice_is_sent_once_and_its_repeat_again(ask, service):
    call = questions(1)[0]
    assert ask([call, call, replace(call, repeat=1)]) == [ANSWERS[0]] * 3
    assert len(service.asked) == 2


@pytest.mark.parametrize("change", [{"model": "claude-sonnet-5"}, {"effort": "high"}])
def test_another_model_or_effort_is_another_call(ask, service, change):
    prices = {"claude-sonnet-5": {"input": 1, "output": 1, "cache_read": 1, "cache_write": 1}}
    ask(), ask(prices=prices, **change)
    assert len(service.asked) == 6


def test_the_request_says_what_a_judge_needs_and_nothing_the_service_refuses(ask, service):
    ask(questions(1))
    assert service.asked == [
        {
            "model": judges.MODEL,
            "max_tokens": 1000,
            "system": [{"type": "text", "text": "Judge the texts.", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "Texts "}],
            "output_config": {
                "format": {"type": "json_schema", "schema": judges.SCHEMA},
                "effort": "low",
            },
        }
    ]


def test_a_compatible_server_is_asked_for_json_of_the_schema(ask, service):
    ask(questions(1), "openai", effort=None)
    form = service.asked[0]["response_format"]
    assert form["type"] == "json_schema" and form["json_schema"]["schema"] == judges.SCHEMA
    assert "reasoning_effort" not in service.asked[0]


@pytest.mark.parametrize("fault", [error(429), error(500), error(529), error(408)])
def test_what_passes_is_sent_again_and_was_not_paid_for(ask, service, usage, provider, fault):
    service.faults = [fault] * 3
    assert ask(provider=provider) == ANSWERS
    assert len(service.asked) == 6 and usage(provider=provider)["unsettled"] == 0


@pytest.mark.parametrize("fault", UNREADABLE)
def test_a_request_without_a_readable_reply_may_have_been_paid_for(ask, service, usage, provider, fault):
    service.faults = [fault]
    assert ask(provider=provider) == ANSWERS
    assert usage(provider=provider)["unsettled"] == 1


def test_a_reply_that_takes_too_long_is_given_up_and_counted(ask, service, usage, provider):
    service.faults = [judges.silence]
    assert ask(provider=provider, timeout_s=0.2) == ANSWERS
    assert usage(provider=provider)["unsettled"] == 1


@pytest.fixture
def pauses(monkeypatch):
    """Seconds that all workers were to wait, instead of waiting."""
    found = []
    monkeypatch.setattr(Pause, "extend", lambda self, seconds: found.append(seconds))
    return found


@pytest.mark.parametrize(
    "headers, least, most",
    [
        ({}, 0.5, 1),
        ({"retry_after": "3"}, 3, 3),
        ({"retry_after_ms": "2500"}, 2.5, 2.5),
        ({"retry_after": "3600"}, 120, 120),
        ({"retry_after": "Wed, 21 Oct 2026 07:28:00 GMT"}, 0.5, 1),
        ({"retry_after": "-5"}, 0.5, 1),
    ],
)
def test_the_service_says_how_long_to_wait_up_to_a_cap(ask, service, pauses, provider, headers, least, most):
    service.faults = [error(429, **headers)]
    ask(provider=provider, max_wait_s=120)
    assert len(pauses) == 1 and least <= pauses[0] <= most


def test_waits_grow_up_to_the_cap_and_differ_by_call():
    failed = Failed("busy", answered=True, perhaps_paid=False)
    first, other = ([Pause(20).after(failed, n, key) for n in range(8)] for key in "ab")
    assert all(min(2**n, 20) / 2 <= wait <= min(2**n, 20) for n, wait in enumerate(first))
    assert first != other and first == [Pause(20).after(failed, n, "a") for n in range(8)]


def test_a_pause_holds_all_workers():
    pause = Pause(1)
    pause.extend(0.05)
    until = pause.until
    pause.extend(0.01)
    assert pause.until == until
    pause.wait()
    assert time.monotonic() >= until


def test_a_service_that_never_recovers_ends_the_run_and_keeps_what_was_answered(ask, service, provider):
    service.faults = [judges.answered, *[error(529, "overloaded")] * ATTEMPTS]
    with pytest.raises(UserError, match=f"HTTP 529.*overloaded.*{ATTEMPTS} times.*run again later"):
        ask(provider=provider)
    assert ask(provider=provider) == ANSWERS
    assert sorted(service.paid) == sorted(call.text for call in questions())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_what_no_repeat_mends_is_sent_once(ask, service, usage, provider, status):
    service.faults = [error(status, "it is so")]
    with pytest.raises(UserError, match=f"HTTP {status}.*it is so.*: check"):
        ask(provider=provider)
    assert len(service.asked) == 1 and usage(provider=provider)["unsettled"] == 0


def test_an_error_lets_the_calls_under_way_end(ask, service):
    service.faults = [judges.answered, error(400), judges.answered_late, judges.answered_late]
    with pytest.raises(UserError, match="HTTP 400"):
        ask(questions(40), workers=4)
    paid = list(service.paid)
    assert len(paid) < 40
    ask(questions(40))
    assert len(service.paid) == 40 and service.paid[: len(paid)] == paid


@pytest.mark.parametrize("why", WRONG)
def test_a_reply_that_is_no_answer_is_asked_for_once_more(ask, service, usage, provider, why):
    service.faults = [replies(WRONG[why][provider == "openai"])]
    assert ask(provider=provider) == ANSWERS
    assert len(service.asked) == 4 and usage(provider=provider)["calls"] == 4


@pytest.mark.parametrize("why", WRONG)
def test_where_the_repeat_is_none_either_the_answer_is_missing_for_good(ask, service, usage, provider, why):
    service.faults = [replies(WRONG[why][provider == "openai"])] * 2
    assert ask(questions(1), provider) == [Answer(None, why)]
    assert ask(questions(1), provider) == [Answer(None, why)]
    assert len(service.asked) == 2 and usage(questions(1), provider)["calls"] == 2


@pytest.mark.parametrize("text", ['{"winner": NaN}', '{"winner": "\\ud800"}', "[1]", "[" * 100_000, "null"])
def test_json_that_no_file_would_take_is_no_answer(ask, service, text):
    service.verdict = lambda question: text
    assert ask(questions(1))[0].value is None


def test_no_answer_of_one_repeat_is_taken_for_another(ask, service):
    call = questions(1)[0]
    refusal = replies(message("no", "refusal"))
    service.faults = [refusal, judges.answered, refusal]
    answers = ask([call, replace(call, repeat=1)])
    assert answers == [Answer(None, "refusal"), ANSWERS[0]]


def test_the_estimate_is_said_before_the_first_call(ask, service):
    ask()
    said = ask.said[0]
    assert said.startswith("3 calls of claude-sonnet-5-5: about $0.05; calls.max_dollars = 10")


def test_too_dear_calls_are_not_begun(ask, service, store):
    with pytest.raises(UserError, match=r"calls.max_dollars = 0.04 is not enough for 3 calls.*about \$0.05"):
        ask(max_dollars=0.04)
    assert not service.asked


def test_the_limit_ends_a_run_that_costs_more_than_expected(ask, service, usage):
    """A call costs at most 1.05 cents here and 0.7 in fact; the estimate says 0.2."""
    calls, cheap = questions(20), {"expected_output_tokens": 100}
    with pytest.raises(UserError, match="calls.max_dollars = 0.05: .*are spent.*what was answered is kept"):
        ask(calls, max_dollars=0.05, workers=4, **cheap)
    assert 0.035 < usage(calls)["dollars"] <= 0.05
    with pytest.raises(UserError, match="calls.max_dollars = 0.05 is not enough"):
        ask(calls, max_dollars=0.05, **cheap)
    before = len(service.asked)
    assert len(ask(calls, max_dollars=0.5, **cheap)) == 20
    assert len(service.asked) == 20 and before < 20


def test_requests_that_may_have_been_paid_for_count_as_money_spent(ask, service):
    service.faults = [judges.reset] * 9
    with pytest.raises(UserError, match="are spent or set aside"):
        ask(questions(1), max_dollars=0.05)


def test_usage_is_counted_by_label(ask, usage, provider):
    ask(provider=provider)
    found = usage(provider=provider)
    dollars = 0.007
    tokens = {"input_tokens": 1000, "output_tokens": 500, "cache_read_tokens": 0, "cache_write_tokens": 0}
    assert found["by_label"]["b"] == {"calls": 1, **tokens, "dollars": dollars}
    assert found["by_label"]["a"]["calls"] == 2 and found["calls"] == 3
    assert found["dollars"] == pytest.approx(3 * dollars)


def test_the_cache_has_prices_of_its_own(ask, service, usage):
    cached = {"input_tokens": 0, "output_tokens": 0, "cache_read_input_tokens": 1_000_000}
    service.faults = [replies(message('{"winner": "A"}') | {"usage": cached})]
    ask(questions(1))
    assert usage(questions(1))["dollars"] == 0.1


def test_usage_before_any_call_is_nothing(usage, store):
    assert usage()["calls"] == 0 and not store.exists()


def test_a_compatible_server_without_a_price_is_free_and_says_so(ask, service, usage):
    with pytest.raises(UserError, match="has claude-sonnet-5-5"):
        ask(provider="openai", model="local", max_dollars=0)
    service.models = ["local"]
    assert ask(provider="openai", model="local", max_dollars=0) == ANSWERS
    found = usage(provider="openai", model="local")
    assert found["dollars"] == 0 and "no price is known of local" in found["warnings"][0]


@pytest.mark.filterwarnings("ignore:The model:DeprecationWarning")
def test_a_model_that_will_end_is_told_with_its_day(ask, usage):
    old = {"model": "claude-sonnet-4-5", "prices": {"claude-sonnet-4-5": PRICES[judges.MODEL]}}
    ask(**old)
    (warning,) = usage(**old)["warnings"]
    assert "claude-sonnet-4-5 is deprecated, its service ends on November 30th, 2026" in warning
    assert f"warning: {warning}" in ask.said and usage()["warnings"] == []


@pytest.mark.parametrize(
    "choices, said",
    [
        ({"model": "claude-sonet-5-5"}, "HTTP 404.*check calls.model = claude-sonet-5-5"),
        ({"base_url": hub.NOWHERE}, "cannot be reached.*check calls.base_url"),
        ({"base_url": "http://judge.example"}, "only https is trusted"),
        ({"base_url": "http://[::1"}, "only https is trusted"),
        ({"model": "claude-sonnet-9"}, "calls.prices has no claude-sonnet-9"),
    ],
)
def test_what_cannot_begin_writes_nothing(ask, service, store, choices, said):
    with pytest.raises(UserError, match=said):
        ask(**choices)
    assert not store.parent.exists() and not service.asked


@pytest.mark.parametrize(
    "key, said", [(None, "is not set"), ("two words", "is no key"), ("clé", "is no key")]
)
def test_a_missing_or_broken_key_is_told_without_showing_it(ask, store, monkeypatch, key, said):
    monkeypatch.setenv("ANTHROPIC_API_KEY", key) if key else monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(UserError, match=f"ANTHROPIC_API_KEY: {said}|ANTHROPIC_API_KEY {said}") as caught:
        ask()
    assert not store.parent.exists() and (key or "?") not in str(caught.value)


def test_a_compatible_server_needs_an_address(ask):
    with pytest.raises(UserError, match="calls.base_url is missing"):
        ask(provider="openai", base_url=None)


def test_a_missing_sdk_is_named_with_its_command(ask, monkeypatch):
    monkeypatch.setitem(sys.modules, "anthropic", None)
    with pytest.raises(UserError, match="requirements-judge.txt"):
        ask()


def test_no_variable_of_the_sdk_sends_the_key_elsewhere(ask, service, monkeypatch, tmp_path):
    monkeypatch.setenv("ANTHROPIC_BASE_URL", hub.NOWHERE)
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-api-key: stolen")
    monkeypatch.setenv("ANTHROPIC_AUTH_TOKEN", "another")
    assert ask() == ANSWERS


def test_a_redirect_does_not_take_the_key_along(ask, service, provider):
    with judges.Judges().running() as other:
        service.faults = [hub.redirected(other.url)]
        with pytest.raises(UserError, match="HTTP 302"):
            ask(provider=provider)
        assert not other.asked


def test_the_key_is_in_no_file_error_or_log(ask, service, store, caplog, capfd, provider, tmp_path):
    """The service puts it into errors and into replies."""
    caplog.set_level("DEBUG")
    service.faults = [error(529, KEY), replies({"error": KEY}), error(400, KEY)]
    with pytest.raises(UserError) as caught:
        ask(provider=provider)
    service.verdict = lambda text: json.dumps({"winner": "A", "why": KEY})
    schema = {"type": "object", "properties": {"winner": {}, "why": {}}}
    answers = ask([replace(call, schema=schema) for call in questions()], provider)
    service.key = "another"
    with pytest.raises(UserError) as refused:
        ask(questions(5), provider)
    shown = "".join([str(caught.value), str(refused.value), *ask.said, caplog.text, *capfd.readouterr()])
    chained = [error.__cause__ for error in (caught.value, refused.value)]
    assert "[key]" in shown and KEY not in shown and chained == [None, None]
    assert answers[0].value["why"] == "[key]"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert store in files and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_a_long_error_does_not_cut_the_key_and_show_its_beginning(ask, service, provider):
    service.faults = [error(400, "x" * (290 if provider == "anthropic" else 232) + KEY)]
    with pytest.raises(UserError) as caught:
        ask(provider=provider)
    assert KEY[:4] not in str(caught.value)


@pytest.mark.parametrize("said", [{"a": 1}, [1]])
def test_an_error_of_another_form_is_one_line(ask, service, provider, said):
    service.faults = [error(400, said)]
    with pytest.raises(UserError, match="HTTP 400"):
        ask(provider=provider)


@pytest.mark.parametrize("body", [{}, [], {"input_tokens": None}, "Please log in"])
def test_a_service_that_counts_no_tokens_is_one_line_before_anything_is_paid(ask, service, monkeypatch, body):
    def answer(self, request, whole=judges.Judges._answer):
        counting = request.path.endswith("count_tokens")
        if counting:
            request.rfile.read(int(request.headers["Content-Length"]))
        return judges.reply(request, body) if counting else whole(self, request)

    monkeypatch.setattr(judges.Judges, "_answer", answer)
    with pytest.raises(UserError, match="a reply that cannot be read .no input_tokens in it"):
        ask()
    assert not service.asked


NAMED = {"type": "object", "properties": {"winner": {}, "by": judges.SCHEMA}}


@pytest.mark.parametrize("said", ['"by": {}', '"by": {"winner": "A", "b": 1}', '"by": "A"', '"of": {}'])
def test_a_reply_without_a_field_that_was_asked_for_or_with_another_is_no_answer(ask, service, said):
    service.verdict = lambda text: '{"winner": "A", %s}' % said  # noqa: UP031
    call = replace(questions(1)[0], schema=NAMED)
    assert ask([call]) == [Answer(None, "schema")] and len(service.asked) == 2
