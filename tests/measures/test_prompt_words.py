import pytest

from storyforge.measures.prompt_words import common_words, covered, elements, words_ratio


def test_common_words_are_those_of_one_text_in_fifty():
    texts = [(f"g{n}", text) for n, text in enumerate(["the rain"] * 2 + ["the sea"] + ["the"] * 97)]
    assert common_words(texts) == {"the", "rain"}


def test_what_one_group_alone_says_is_its_names():
    texts = [(f"play {n % 2}", f"the KING{'AB'[n % 2]}") for n in range(10)]
    assert common_words(texts) == {"the"}


def test_elements_are_the_uncommon_words_without_their_endings():
    common = frozenset(["write", "scene", "speakers"])
    assert elements("Write a scene. Speakers: ROSALBA, HODGE. The ferries!", common) == {
        "rosal",
        "hodg",
        "ferri",
    }


def test_an_element_is_covered_by_any_word_that_begins_with_it():
    assert covered(frozenset(["lantern", "ferr"]), "Two Ferries left. No lamp.") == 0.5
    assert covered(frozenset(["lantern"]), "The Lanterns' glow") == 1
    assert covered(frozenset(["ante"]), "lantern") == 0
    assert covered(frozenset(), "whatever") is None


@pytest.mark.parametrize(
    "prompt, asked",
    [
        ("Write about 300 words.", (300, 300)),
        ("In 600–800 words, tell", (600, 800)),
        ("between 1,000 and 1,500 words", (1000, 1500)),
        ("a 250-word story", (250, 250)),
        ("Use these 3 words, in 100 words", (100, 100)),
    ],
)
def test_the_length_asked_for_is_read_from_the_prompt(prompt, asked):
    fewest, most = asked
    assert words_ratio(prompt, fewest) == words_ratio(prompt, most) == 1
    assert words_ratio(prompt, fewest - 1) < 1 < words_ratio(prompt, most + 1)


@pytest.mark.parametrize("written, ratio", [(300, 0.5), (600, 1), (700, 1), (800, 1), (1200, 1.5)])
def test_inside_the_band_is_one(written, ratio):
    assert words_ratio("in 600 to 800 words", written) == ratio


def test_no_length_asked_no_ratio():
    assert words_ratio("Tell of rain.", 100) is None
    assert words_ratio("a story of three words and 40 ships", 100) is None
