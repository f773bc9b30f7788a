import threading
from contextlib import ExitStack

import pytest

from storyforge.commands import session
from storyforge.commands.session import Queue, Reply, answer, markdown, request, title
from storyforge.commands.writers import Writers, asked, named, sampling
from storyforge.core.errors import UserError
from storyforge.core.records import Prompt

DUEL = Prompt("duel", "duel", "A duel.")


def test_a_reply_is_what_write_gives(adapter, older):
    ready, (prompt, _) = Writers(named(None, [older])), asked([])
    made = request(prompt, ready.names, {"seed": 4})
    grown = list(answer(ready, made))
    assert list(dict.fromkeys(grown)) == list(ready.names)
    for name, reply in made.replies.items():
        (written,) = ready.write(name, [prompt], sampling({"seed": 4}))
        assert reply == Reply(written.text, f"{written.tokens} tokens, cut")


def test_the_time_limit_ends_all_writers(adapter, monkeypatch):
    monkeypatch.setattr(session, "MAX_SECONDS", 0.0)
    made = request(DUEL, ["base", "tuned"], {})
    list(answer(Writers(named(None)), made))
    assert "tokens, stopped after 0 s" in made.replies["base"].end
    assert made.replies["tuned"] == Reply("", "not begun")


def test_an_interrupted_reply_says_so(adapter):
    made = request(DUEL, ["base", "tuned"], {})
    grown = answer(Writers(named(None)), made)
    next(grown)
    grown.close()
    assert made.replies["base"].text and made.replies["base"].end.endswith(" tokens …")


def test_a_prompt_without_room_for_the_reply_is_refused(adapter):
    made = request(Prompt("long", "long", "rain " * 90), ["base"], {"max_new_tokens": 100})
    with pytest.raises(UserError, match="a reply of 100 are more than the 512 tokens"):
        list(answer(Writers(named(None)), made))
    assert made.replies == {"base": Reply()}


@pytest.mark.parametrize(
    ("prompt", "writers", "changes", "complaint"),
    [
        (" \n", ["base"], {}, "no prompt: say what the story is about"),
        ("x" * 2001, ["base"], {}, "2001 characters of prompt: at most 2000"),
        ("A duel.", [], {}, "0 writers: choose one to 3"),
        ("A \ud83d.", ["base"], {}, "the prompt: character 3 is half a character"),
        ("A duel.", ["base", "tuned", "a", "b"], {}, "4 writers: choose one to 3"),
        ("A duel.", ["base"], {"max_new_tokens": 601}, "601 tokens: at most 600"),
        ("A duel.", ["base"], {"temperature": -1}, "temperature = -1: Input should be greater"),
    ],
)
def test_a_request_beyond_the_caps_is_refused_in_one_line(clone, prompt, writers, changes, complaint):
    with pytest.raises(UserError, match=complaint) as refused:
        request(Prompt("yours", "yours", prompt), writers, changes)
    assert "\n" not in str(refused.value)


def test_visitors_are_served_one_at_a_time_in_the_order_they_came():
    queue, served = Queue(), []

    def visit(number, ahead):
        while ahead():
            pass
        served.append(number)

    with ExitStack() as stack:
        tickets = [ExitStack() for _ in range(3)]
        aheads = [ticket.enter_context(queue.place()) for ticket in tickets]
        assert [ahead() for ahead in aheads] == [0, 1, 2]
        threads = [threading.Thread(target=visit, args=(n, aheads[n]), daemon=True) for n in (2, 1)]
        stack.callback(lambda: [thread.join(10) for thread in threads])
        for thread in threads:
            thread.start()
        assert served == []
        tickets[0].close()
        threads[1].join(10)
        assert served == [1]
        tickets[1].close()
        threads[0].join(10)
        assert served == [1, 2]
        tickets[2].close()
    with queue.place() as ahead:
        assert ahead() == 0


def test_a_visitor_who_gives_up_leaves_the_queue():
    queue = Queue()
    with queue.place(), queue.place() as last:
        with pytest.raises(KeyboardInterrupt), queue.place():
            raise KeyboardInterrupt
        assert last() == 1


def test_a_full_queue_refuses_the_next(monkeypatch):
    monkeypatch.setattr(session, "MAX_VISITORS", 2)
    queue = Queue()
    with queue.place(), queue.place():
        with pytest.raises(UserError, match="2 are waiting already: try again in a few minutes"):
            queue.place().__enter__()


def test_in_the_downloaded_page_no_text_is_markup(clone):
    made = request(Prompt("duel", "duel", "# A\n<i>duel</i>"), ["base", "<b>"], {"seed": 7})
    made.replies["base"].text, made.replies["base"].end = "## One\n\n<script>\x85* two", "5 tokens, cut"
    page = markdown([made])
    assert "## Duel\n\n    # A\n    <i>duel</i>\n\ntemperature 1, top p 0.95, seed 7\n" in page
    assert "### base\n\n    ## One\n    \n    <script>\n    * two\n\n5 tokens, cut\n" in page
    assert "### \\<b\\>\n" in page


@pytest.mark.parametrize(
    ("id", "kind", "expected"),
    [
        ("fog-bell", "mystery", "Mystery: fog bell"),
        ("science-fiction-seed-vault", "science fiction", "Science fiction: seed vault"),
        ("Your own", "Your own", "Your own"),
    ],
)
def test_titles_distinguish_prompts_of_one_kind(id, kind, expected):
    assert title(Prompt(id, kind, "…")) == expected
