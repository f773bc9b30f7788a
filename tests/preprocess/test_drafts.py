"""Each source's stories become drafts of the right text, prompt and end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.core.records import Story
from storyforge.preprocess.drafts import Profile, drafts
from storyforge.preprocess.filters import judged
from storyforge.preprocess.passages import Passage
from storyforge.preprocess.prose import continuation_prompt
from storyforge.preprocess.wordings import (
    LATER_WORDINGS,
    SCENE_WORDINGS,
    STORY_WORDINGS,
    opening_prompt,
    scene_prompt,
)

SCENE = (
    "_Enter ANNA_\n\n**ANNA**  \n"
    + "Rain and again rain.  \n" * 12
    + "\n**CLARA**  \n"
    + "No more of it.  \n" * 6
)


def profile(**changes) -> Profile:
    return Profile(**({"form": "prose", "described_as": "a tale"} | changes))


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


@pytest.mark.parametrize("token", ["<|im_start|>", "<start_of_turn>", "[INST]", "[TOOL_CALLS]", "<<SYS>>"])
def test_a_control_token_in_a_play_is_no_part_of_it_and_no_secret(token):
    raw = story(SCENE + f"\nAnd now {token} the sun.  \n", "shakespeare", genre="comedy")
    bounds = profile(form="drama", max_words=40, longer="passages")
    reasons = [judged(draft, bounds) for draft in drafts(raw, bounds)]
    assert reasons[:-1] == [{}] * (len(reasons) - 1)
    assert list(reasons[-1]) == ["control_token"]


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
    (draft,) = drafts(story("The fox slept. It rained all day, and nobody came to see it."), profile())
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


MIDDLE = Passage("ANNA\nYes.", opens=False, ends=False, speakers=("ANNA", "FIRST PORTER"))


def test_a_scene_prompt_names_genre_place_speakers_and_part():
    prompts = {scene_prompt(str(key), "history", "London. The palace.", MIDDLE) for key in range(60)}
    assert prompts == {
        wording.format(
            part="a passage from the middle of a scene",
            kind="history play",
            place=" Place: London. The palace.",
            speakers=" Speakers: ANNA, FIRST PORTER.",
        )
        for wording in SCENE_WORDINGS
    }


def test_the_same_key_words_it_the_same():
    assert scene_prompt("x", "comedy", "", MIDDLE) == scene_prompt("x", "comedy", "", MIDDLE)


def test_what_is_not_known_is_not_said():
    alone = Passage("[Alarum]", opens=True, ends=True)
    prompt = scene_prompt("x", "comedy", "The same.", alone)
    assert "Place" not in prompt and "Speakers" not in prompt and "same" not in prompt
    assert "a whole short scene" in prompt
    assert "Place: A street." in scene_prompt("x", "comedy", "The same. A street.", alone)


def test_the_part_is_said():
    first, last = Passage("", opens=True, ends=False), Passage("", opens=False, ends=True)
    assert "the opening of a scene" in scene_prompt("x", "tragedy", "", first)
    assert "the end of a scene" in scene_prompt("x", "tragedy", "", last)


def test_an_opening_prompt_quotes_the_first_sentence_and_names_the_register():
    story = Passage('"Stop!" said the cat. It sat down.' + " It slept." * 9, opens=True, ends=True)
    prompts = {opening_prompt(str(key), "a tale", story) for key in range(60)}
    assert len(prompts) == len(STORY_WORDINGS)
    assert all("a tale" in prompt and '"Stop!"' in prompt and "It sat" not in prompt for prompt in prompts)


def test_a_long_first_sentence_is_shortened():
    story = Passage("word " * 100, opens=True, ends=True)
    assert "word " * 30 + "…" in opening_prompt("x", "a tale", story)


CHINESE = "".join(f"第{n}天他在河边等她，风吹过来，没有人说话。" for n in range(36))
RUSSIAN = "Старик сидел у окна и смотрел, как падает снег. Он вспоминал свою молодость. " * 40
FINNISH = "Vanha mies istui ikkunan ääressä ja katseli lumen hidasta putoamista. Hän muisteli. " * 40


@given(st.text(min_size=1) | st.sampled_from([CHINESE, RUSSIAN, "Mr. A. " * 9]), st.booleans())
def test_a_prompt_never_shows_more_than_a_third_of_its_text(text, opens):
    prompt = opening_prompt("x", "", Passage(text, opens, ends=True))
    frames = [w.format(register="", opening="\0").split("\0") for w in (*STORY_WORDINGS, *LATER_WORDINGS)]
    around = max(len(head + tail) for head, tail in frames if prompt.startswith(head) and tail in prompt)
    assert len(prompt) - around <= len(text) / 3 + len(" …")


def test_a_text_without_spaces_is_asked_for_by_its_first_sentence():
    (draft,) = drafts(story(CHINESE), profile())
    assert "第0天他在河边等她，风吹过来，没有人说话。" in draft.prompt and len(draft.prompt) < 100


@pytest.mark.parametrize(("text", "language"), [(CHINESE * 3, "zh"), (RUSSIAN, "ru"), (FINNISH, "fi")])
def test_what_other_languages_take_is_counted_by_what_they_are_written_in(text, language):
    made = drafts(story(text), profile(max_words=440, longer="passages"))
    assert {draft.language for draft in made} == {language}
    assert all(len(draft.text.encode()) <= 2.5 * 440 for draft in made)
    assert "".join("".join(draft.text for draft in made).split()) == "".join(text.split())


def test_a_later_passage_is_asked_for_by_the_page_before_it():
    text = "\n\n".join(f"Paragraph {n} is here." for n in range(30))
    first, second, third = drafts(story(text), profile(max_words=40, longer="passages", page_words=20))
    assert first.prompt == opening_prompt("s1-0", "a tale", Passage(first.text, True, False))
    assert second.prompt == continuation_prompt("\n\n".join(first.text.split("\n\n")[-5:]))
    assert third.text.startswith(f"Paragraph {second.text.count('Paragraph') + 10} ") and third.ended


def test_a_story_of_one_passage_is_gone_on_with_from_its_middle():
    text = "\n\n".join(f"Paragraph {n} is here, and it rains." for n in range(20))
    whole, rest = drafts(story(text), profile(page_words=30, max_words=400, longer="passages"))
    assert (whole.id, whole.text, whole.ended, rest.id, rest.ended) == ("s1", text, True, "s1-1", True)
    assert text.endswith(rest.text) and 0.4 < len(rest.text) / len(text) < 0.6
    page = rest.prompt.removeprefix(continuation_prompt(""))
    assert page in text.removesuffix(rest.text) and 20 < len(page.split()) <= 30
    assert len(drafts(story("Too short to be cut. " * 5), profile(page_words=30))) == 1


def test_a_second_draft_that_would_be_too_short_is_not_made():
    text = "\n\n".join("word " * (count - 1) + "end." for count in (30, 54, 16))
    made = {least: drafts(story(text), profile(page_words=30, min_words=least)) for least in (5, 20)}
    assert [len(found) for found in made.values()] == [3, 2]


def test_a_later_passage_is_asked_for_as_one():
    story = Passage("Then it rained. " * 3, opens=False, ends=True)
    prompts = {opening_prompt(str(key), "a tale", story) for key in range(60)}
    assert prompts == {
        wording.format(register="a tale", opening="Then it rained.") for wording in LATER_WORDINGS
    }


def test_a_screenplay_among_stories_is_asked_for_as_one():
    text = "INT. KITCHEN - NIGHT\n\nANN\nWho is there?\n\nBEN\nOnly the rain."
    (draft,) = drafts(story(text, form="drama"), profile())
    assert "screenplay" in draft.prompt and draft.text == text
    (other,) = drafts(story(text), profile())
    assert "a tale" in other.prompt
