import pytest

from storyforge.principles.checks import CHECKS
from storyforge.principles.corpus import corpus
from storyforge.principles.findings import complete

SCENE = "Write a scene for a comedy. Place:"


def found(name, prompt, text, known, ended=True):
    return CHECKS[name](prompt, text, ended, known)


def test_the_uncommon_words_of_a_prompt_are_asked_for_but_not_those_of_a_scene(known):
    assert found("asked_words", "A lighthouse, a ferry.", "Two ferries.", known).score == 0.5
    assert found("asked_words", "A scene.", "Two ferries.", known) is None
    assert found("asked_words", f"{SCENE} A windy orchard.", "The orchards", known) is None


def test_a_page_to_go_on_from_asks_for_no_words(known):
    assert found("asked_words", "lantern " * 121, "lantern", known) is None


@pytest.mark.parametrize(
    "count, score", [(0, 0), (50, 0), (75, 0.5), (100, 1), (120, 1), (160, 0.5), (240, 0), (999, 0)]
)
def test_length_falls_to_nothing_at_half_and_at_double(count, score, known):
    assert found("length", "In 100 to 120 words.", "rain " * count, known).score == pytest.approx(score)


def test_speech_may_use_any_pronoun(known):
    text = 'He came. "I saw you," she said. “You lie,” he said.'
    assert found("viewpoint", "in the third person", text, known).score == 1


def test_a_first_person_tells_of_others_too_but_not_for_long(known):
    prompt = "In the first person."
    assert found("viewpoint", prompt, "I came. " + "He left. " * 3, known).score == 1
    long = found("viewpoint", prompt, "I came. " + "He left. " * 7, known)
    assert long.score == 0.5 and len(long.spans) == 4
    assert found("viewpoint", "In the second-person.", "I came.", known).score == 0
    assert found("viewpoint", prompt, "Rain fell.", known) is None


@pytest.mark.parametrize("word", ["Fabrizio", "FABRCIO", "Fabriccio", "Farbicio", "Fabrizio's"])
def test_a_name_with_a_wrong_letter(word, known):
    result = found("names", "Tell of Fabricio.", f"Fabricio slept. {word} woke.", known)
    assert result.score == 0.5 and len(result.spans) == 1


@pytest.mark.parametrize("word", ["Fabricio’s", "Fabius", "fabrizio", "Fabri", "Valley", "F" * 40])
def test_what_is_no_misspelt_name(word, known):
    result = found("names", "Tell of Fabricio and Falley.", f"Fabricio slept. {word} woke.", known)
    assert result.score == 1


def test_a_text_that_was_cut_has_not_ended(known):
    scene = "Write a whole short scene."
    assert found("ends", scene, "They left.", known).score == 1
    assert found("ends", scene, "They left.", known, ended=False).score == 0
    assert found("ends", scene, "ANNE\nGo.\n[Exeunt]\n", known).score == 1
    assert found("ends", "Write the opening of a scene.", "They lef", known) is None


def test_a_loop_scores_nearly_nothing_and_a_refrain_nothing_less(known):
    varied = " ".join(map(str, range(200)))
    assert found("said_once", "", f"{varied} 1 2 3 4 5", known).score == 1
    assert found("said_once", "", "we were here again " * 100, known).score < 0.05


@pytest.mark.parametrize(
    "text",
    [
        "Sure! Here is a scene.\n\nANNE\nGo.",
        "Certainly, here's the opening of your scene:\n\nANNE\nGo.",
        "ANNE\nGo.\n\nI hope you enjoy it.",
        "Place: A wood.\nSpeakers: ANNE.\n\nANNE\nGo.",
        "**Title:** The wood",
        "Write a scene in the manner of a comedy.",
    ],
)
def test_talk_about_the_text(text, known):
    assert found("no_meta", "", text, known).score == 0


@pytest.mark.parametrize(
    "text",
    [
        "This is the story of a girl.",
        "Surely he knows. Certainly not I.",
        "I want to write a story, she said.",
        "No place: no home. Note it well.",
        "Here is the letter.",
    ],
)
def test_innocent_words_are_no_talk_about_the_text(text, known):
    assert found("no_meta", "", text, known).score == 1


def test_the_prompts_own_words_are_known_and_without_stories_nothing_is_strange_or_copied(known):
    assert found("known_words", "Tell of Rosalba.", "Rosalba", known).score == 1
    assert found("known_words", "", "Rosalba", corpus([])) is None
    assert found("own_words", "", "She said it had rained for a week in", corpus([])).score == 1


def test_half_a_word_at_the_end_of_a_text_that_was_cut_is_no_word(known):
    text = "The night is lon"
    assert found("known_words", "Tell.", text, known, ended=False).score == 1
    assert found("known_words", "Tell.", text, known, ended=True).score == 0.75
    assert found("names", "Speakers: BENEDICT.", "Come, Benedic", known, ended=False) is None


def test_of_a_cut_text_without_spaces_nothing_is_taken_for_its_last_word():
    text = "月" * 60
    assert complete(text, False) == text and complete(f"One two {'w' * 12}", False) == "One two"
