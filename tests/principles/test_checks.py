"""Each check tells two texts apart that differ in its rule alone."""

import pytest

from storyforge.core.records import Exchange
from storyforge.principles.checks import CHECKS, Corpus, corpus

SCENE = "Write a scene. Place: A mill by the river. Speakers: ROSALBA, HODGE."
KNOWN = corpus(
    Exchange(
        f"s{n}",
        "made",
        f"g{n}",
        "Write a scene.",
        f"We saw the rain over every roof of the town {word}.",
        True,
    )
    for n, word in enumerate(
        "again once more before night fell and the old river rose above its banks".split()
    )
)
GOOD = "ROSALBA\nThe mill is still.\n\nHODGE\nThe river sleeps.\n\nROSALBA\nThen wake it."
PAIRS = {
    "prompt_words": (SCENE, GOOD, GOOD.replace("mill", "barn").replace("river", "wheel")),
    "speakers": (SCENE, GOOD, GOOD.replace("HODGE", "A STRANGER")),
    "turns": (SCENE, GOOD, GOOD.replace("HODGE", "ROSALBA")),
    "drama_form": (SCENE, GOOD, "It was late, and nobody spoke.\n\n" + GOOD),
    "words_asked": ("Tell it in about 30 words.", "rain " * 30, "rain " * 60),
    "viewpoint": ("In the first person, tell of rain.", "I saw the rain.", "She saw the rain."),
    "names_kept": (SCENE, "Enter Rosalba and Hodge.", "Enter Rosalbo and Hodge."),
    "ends": ("Give a whole short scene.", "And so it ended.", "And so it"),
    "said_once": ("Tell of rain.", "We saw the rain over every roof of the town.", "we saw the rain " * 9),
    "known_words": ("Tell of rain.", "We saw the rain.", "We saw the rfxain."),
    "not_copied": (
        "Tell.",
        "Over the town the rain, we saw, fell.",
        "We saw the rain over every roof of the town.",
    ),
    "no_meta": ("Tell of rain.", "The rain fell.", "Here is a short story: the rain fell."),
    "safe": (
        "Tell.",
        "The child moaned no more, cold in death.".replace("moaned", "wept"),
        "An erotic child.",
    ),
}
ODD = [
    "",
    "x",
    "word " * 5000,
    "無" * 3000,
    "🙂‍↔️" * 200,
    "\u202eabc\x00\x1b[31m",
    "A" * 200_000,
    "AA\n" * 50_000,
    "[" * 50_000,
]


def test_every_check_has_its_pair():
    assert list(PAIRS) == list(CHECKS)


@pytest.mark.parametrize("name", PAIRS)
def test_a_check_tells_a_kept_rule_from_a_broken_one(name):
    prompt, kept, broken = PAIRS[name]
    ended = name != "ends"
    good = CHECKS[name](prompt, kept, True, KNOWN)
    bad = CHECKS[name](prompt, broken, ended, KNOWN)
    assert good.score > bad.score and good.score == pytest.approx(1, abs=0.35)


@pytest.mark.parametrize("name", PAIRS)
def test_any_text_has_a_score_and_spans_inside_it(name):
    for text in ODD:
        if found := CHECKS[name](PAIRS[name][0], text, False, KNOWN):
            assert 0 <= found.score <= 1 and found.opportunities > 0
            assert all(0 <= start <= end <= len(text) for start, end in found.spans)


def test_hashes_of_runs_are_the_same_in_every_process():
    assert isinstance(KNOWN, Corpus) and all(isinstance(run, int) for run in KNOWN.runs)
    assert (
        min(corpus([Exchange("s", "a", "b", "p", "one two three four five six seven eight", True)]).runs)
        == 2282042512
    )
