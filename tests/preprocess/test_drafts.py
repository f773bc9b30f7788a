"""Each source's stories become drafts of the right text, prompt and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.records import Story
from storyforge.preprocess.drafts import Profile, drafts

OFF = {name: None for name in Profile.model_fields} | dict(
    form="prose", longer="drop", drop_tags=(), must_end=False, drop_unsafe=False, described_as="a tale"
)
SCENE = (
    "_Enter ANNA_\n\n**ANNA**  \n"
    + "Rain and again rain.  \n" * 12
    + "\n**CLARA**  \n"
    + "No more of it.  \n" * 6
)


def profile(**changes) -> Profile:
    return Profile(**(OFF | changes))


def story(text: str, source: str = "folder", prompt: str | None = None, **meta) -> Story:
    return Story("s1", source, "g1", prompt, text, "mine", meta)


def test_a_scene_is_cut_into_passages_with_prompts_of_their_own():
    raw = story(SCENE, "shakespeare", genre="comedy", place="A street.", play="Rain", act="I", scene="II")
    made = drafts(raw, profile(form="drama", max_words=40, longer="passages"))
    assert [draft.id for draft in made] == ["s1-0", "s1-1", "s1-2"]
    assert [draft.ended for draft in made] == [False, False, True]
    assert all("A street." in draft.prompt and "comedy" in draft.prompt for draft in made)
    assert made[1].meta == {"play": "Rain", "act": "I", "scene": "II", "passage": 1}
    assert made[0].words[:3] == ["rain", "and", "again"]
    assert "enter" in made[0].all_words


def test_a_reddit_row_keeps_its_prompt_and_tags():
    raw = story("`` No , '' she said . <newline> Edit : thanks !", "writingprompts", "[ WP ] It 's late .")
    (draft,) = drafts(raw, profile(form="reddit"))
    assert (draft.prompt, draft.own_prompt, draft.text) == ("It's late.", "It's late.", '"No," she said.')
    assert draft.meta == {"tags": ["WP"], "stripped_characters": len("Edit:thanks!")}
    assert draft.ended


def test_a_story_cut_to_its_first_part_has_not_ended():
    text = "One two three.\n\nFour five six." + "\n\nSeven eight nine." * 20
    (draft,) = drafts(story(text), profile(max_words=20, longer="first"))
    assert not draft.ended and draft.text.endswith("nine.")
    assert len(draft.text.split()) <= 20


def test_a_plain_text_is_asked_for_by_its_opening():
    (draft,) = drafts(story("The fox slept. It rained."), profile())
    assert "The fox slept." in draft.prompt and "a tale" in draft.prompt
    assert draft.id == "s1" and draft.own_prompt is None


def test_a_text_with_a_prompt_of_its_own_keeps_it():
    (draft,) = drafts(story("The fox slept.", prompt="A fox,\nasleep"), profile())
    assert draft.prompt == draft.own_prompt == "A fox, asleep"


def test_a_long_text_becomes_passages():
    text = "\n\n".join(f"Paragraph {n} is here." for n in range(30))
    made = drafts(story(text, title="Book"), profile(max_words=40, longer="passages"))
    assert len(made) == 3
    assert [draft.ended for draft in made] == [False, False, True]
    assert made[0].prompt != made[1].prompt and made[1].meta == {"title": "Book"}


@pytest.mark.parametrize("form", ["drama", "reddit", "prose"])
def test_an_empty_text_is_a_draft_so_that_it_can_be_rejected(form):
    (draft,) = drafts(story(" \n"), profile(form=form, max_words=20, longer="passages"))
    assert draft.text == "" and not draft.words


@given(
    st.sampled_from(["drama", "reddit", "prose"]),
    st.text(st.sampled_from("Ab .,!\n*_[]<|>'`-")) | st.text(),
    st.text() | st.none(),
)
def test_every_story_becomes_a_draft(form, text, prompt):
    assert drafts(story(text, prompt=prompt), profile(form=form, max_words=20, longer="passages"))
