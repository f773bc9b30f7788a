from storyforge.core.records import Exchange
from storyforge.core.words import words
from storyforge.principles.corpus import corpus


def story(text, group="g", prompt="Tell."):
    return Exchange(group, "made", group, prompt, text, True)


def test_runs_are_copied_only_in_their_order_and_only_within_one_story():
    facts = corpus([story("one two three four five six seven eight nine"), story("ten eleven")])
    assert facts.copied(words("zero one two three four five six seven eight nine")).tolist() == [
        False,
        True,
        True,
    ]
    assert facts.copied(words("two one three four five six seven eight")).tolist() == [False]
    assert facts.copied(words("three four five six seven eight nine ten")).tolist() == [False]
    assert facts.copied(words("one two")).tolist() == []


def test_known_words_are_those_of_the_stories():
    assert corpus([story("The RAIN fell.")]).numbers.keys() == {"the", "rain", "fell"}


def test_common_words_are_those_that_prompts_of_several_works_have():
    rows = [story("rain", group, f"Tell of {group}") for group in ("Hamlet", "Macbeth")]
    assert corpus(rows).common == {"tell", "of"}


def test_the_order_of_the_stories_changes_no_answer():
    rows = [story(" ".join(f"w{n * k % 97}" for n in range(60)), f"g{k}") for k in range(1, 6)]
    text = words(rows[2].story) + words(rows[0].story)
    assert corpus(rows).copied(text).tolist() == corpus(rows[::-1]).copied(text).tolist()
