"""Rows in every common form give prompts and texts; others are told which keys are wanted."""

import pytest

from storyforge.collect.reading import Unusable
from storyforge.collect.rows import about, exchanges, listed
from storyforge.collect.sources import folder_row

SAID = [{"role": "system", "content": "You write."}, {"role": "user", "content": "Begin."}]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": "One."}, (None, "One.")),
        ({"story": "One.", "prompt": "Begin."}, ("Begin.", "One.")),
        ({"text": "", "story": "One."}, (None, "One.")),
        ({"prompt": "Begin.", "completion": "One."}, ("Begin.", "One.")),
        ({"instruction": "Begin.", "input": "", "output": "One."}, ("Begin.", "One.")),
        ({"instruction": "Go on.", "input": "She ran.", "output": "One."}, ("Go on.\n\nShe ran.", "One.")),
        ({"messages": [*SAID, {"role": "assistant", "content": "One."}]}, ("Begin.", "One.")),
        (
            {
                "messages": [
                    {"role": "assistant", "content": [{"type": "text", "text": "One."}, {"type": "image"}]}
                ]
            },
            (None, "One."),
        ),
        (
            {"conversations": [{"from": "human", "value": "Begin."}, {"from": "gpt", "value": "One."}]},
            ("Begin.", "One."),
        ),
    ],
)
def test_every_common_form_gives_its_prompt_and_text(row, expected):
    assert exchanges(row) == [expected]


def test_turns_of_one_conversation_are_one_work():
    turns = [*SAID, {"role": "assistant", "content": "One."}]
    turns += [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "Two."}]
    one, two = folder_row("a.jsonl", {"messages": turns})
    assert [(one.prompt, one.text), (two.prompt, two.text)] == [("Begin.", "One."), ("Go on.", "Two.")]
    assert one.group == two.group


def test_empty_optional_fields_are_absent_fields():
    (story,) = folder_row("a.jsonl", {"text": "One.", "prompt": " ", "group": "", "title": None, "tags": []})
    assert (story.prompt, story.group, story.meta) == (None, story.id, {"file": "a.jsonl"})


def test_rows_of_one_title_are_one_group():
    rows = [{"text": f"Part {n}.", "title": f"The Sea, Part {n}", "prompt": f"Begin {n}."} for n in (1, 2)]
    assert {folder_row("a.csv", row)[0].group for row in rows} == {"the sea"}


def test_year_may_be_a_title_and_a_text_may_not_be_a_number():
    assert about({"title": 1984, "author": "A", "tags": ["x", 3], "n": 1}) == {
        "title": "1984",
        "author": "A",
        "tags": ["x"],
    }
    with pytest.raises(Unusable, match="text_not_text"):
        exchanges({"text": 7})


@pytest.mark.parametrize(
    ("row", "reason", "detail"),
    [
        (
            {"body": "x", "n": 1},
            "no_text",
            "its keys are body, n; wanted are text or story; prompt and completion;",
        ),
        ({"prompt": "Begin."}, "no_text", "its keys are prompt; wanted are"),
        ({"text": None}, "no_text", "its keys are none; wanted are"),
        ({"story": " "}, "empty_text", ""),
        ({"messages": [{"role": "user", "content": "Begin."}]}, "no_text", "no turn of the conversation is"),
        ({"messages": "Begin."}, "no_text", "its conversation is no list of turns"),
        ({"messages": ["Begin."]}, "no_text", "a turn of its conversation is no object"),
    ],
)
def test_row_without_a_text_is_told_the_keys_found_and_wanted(row, reason, detail):
    with pytest.raises(Unusable) as caught:
        exchanges(row)
    assert str(caught.value) == reason and caught.value.detail.startswith(detail)


def test_half_a_character_in_a_tag_is_a_reason():
    with pytest.raises(Unusable, match="lone_surrogate"):
        about({"text": "One.", "tags": ["\ud800"]})


def test_json_holds_a_list_of_rows_or_of_texts_or_one_row():
    assert listed([{"text": "a"}, "b"]) == [{"text": "a"}, {"text": "b"}]
    assert listed({"data": [{"text": "a"}], "version": 1}) == [{"text": "a"}]
    assert listed({"text": "a", "tags": ["x"]}) == [{"text": "a", "tags": ["x"]}]
