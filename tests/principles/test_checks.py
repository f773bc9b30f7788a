"""Each check tells two texts apart that differ in its rule alone; none fails or takes long over odd texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storyforge.principles.checks import CHECKS

SCENE = "Write the end of a scene for a comedy. Place: An orchard. Speakers: ROSALBA, DUKE FABRICIO, HODGE."
KEPT = "[Enter all]\n\nROSALBA\nThe orchard is long.\n\nHODGE\nThe night is long."
TOLD = "He wept at home. She ran by night. He left for ever."
MILL = "We came by the old mill road"
WEEK = "She said it had rained for a week in"
NUMBERS = " ".join(map(str, range(30)))

# Of each check: a prompt, the text that keeps the rule, the one that breaks it, and where; None: what is
# missing has no place.
PAIRS = {
    "asked_words": ("Of an orchard.", "The orchard is long.", "The garden is long.", None),
    "speakers": (SCENE, KEPT, KEPT.replace("HODGE", "ROSALBA"), None),
    "headings": (SCENE, KEPT, KEPT.replace("HODGE", "MARIA"), "MARIA"),
    "turns": (SCENE, KEPT, KEPT.replace("HODGE", "ROSALBA"), None),
    "form": (SCENE, KEPT, KEPT.replace("HODGE\n", ""), "The night is long."),
    "length": ("Tell it in 30 words.", NUMBERS, NUMBERS[:-20], None),
    "viewpoint": ("In the third person.", TOLD, TOLD.replace("He left", "I left"), " I left for ever."),
    "names": (SCENE, KEPT, KEPT.replace("ROSALBA", "ROSLABA"), "ROSLABA"),
    "ends": (SCENE, KEPT, KEPT.removesuffix("."), KEPT[-21:-1]),
    "said_once": ("Tell.", f"{MILL}. {MILL[:8]} again.", f"{MILL}. {MILL}.", MILL),
    "known_words": ("Tell.", "The night is long.", "The night is lonk.", "lonk"),
    "own_words": ("Tell.", f"{WEEK[8:]}. {WEEK[:8]}", f"{WEEK}. {WEEK[:8]}", WEEK),
    "no_meta": ("Tell.", "The night is long.", "As an AI, the night is long.", "As an AI"),
    "safe": ("Tell.", "They had sex.\n\nThe toddler slept.", "They had sex. The toddler slept.", "toddler"),
}


@pytest.mark.parametrize("name", CHECKS)
def test_two_texts_that_differ_in_one_rule_are_told_apart(name, known):
    prompt, kept, broken, where = PAIRS[name]
    good, bad = (CHECKS[name](prompt, text, True, known) for text in (kept, broken))
    assert good.score > bad.score and not good.spans
    assert [broken[start:end] for start, end in bad.spans] == ([where] if where else [])
    assert bad.opportunities >= 1


@pytest.mark.parametrize("name", CHECKS)
def test_the_rules_that_the_two_do_not_differ_in_see_no_difference(name, known):
    """But what hangs together: a name that is exchanged is one more speaker, or one less."""
    allowed = {
        "headings": {"speakers", "turns"},
        "speakers": {"turns"},
        "turns": {"speakers"},
        "form": {"speakers", "headings", "turns"},
        "names": {"speakers", "headings", "turns"},
    }
    prompt, kept, broken, _ = PAIRS[name]
    for other in CHECKS.keys() - {name, "known_words"} - allowed.get(name, set()):
        good, bad = (CHECKS[other](prompt, text, True, known) for text in (kept, broken))
        assert (good and good.score) == (bad and bad.score), other


ODD = {
    "empty": "",
    "one word": "rain",
    "5,000 words": "rain falls on the valley below. " * 834,
    "no spaces": "rain" * 5000,
    "emoji": "👩‍👩‍👧 🎭 " * 500,
    "right to left": "\u202eשלום עולם\n\nمرحبا بالعالم: " * 200,
    "control characters": "".join(map(chr, range(32))) * 50,
    "separators": "a\u2028b\u2029c\r\nd\x85e\x0b" * 200,
    "one long line": "ROSALBA: the night is long. " * 7200,
    "spaces": " " * 200_000,
    "line ends": "\n" * 200_000,
    "names": "ROSALBA\n" * 25_000,
    "half a name": "A" * 200_000,
    "quotes that never close": "“" * 100_000 + '"' * 100_001,
    "brackets that never close": "[" * 100_000 + "\n(" * 50_000,
    "marks": "*_" * 100_000,
    "lines of marks": "_a b\n" * 40_000,
    "colons": "A:" * 100_000,
    "stops": ".!?" * 70_000,
    "apostrophes": "a'" * 100_000,
    "meta": "here is a " * 20_000,
    "sex": "sex toddler " * 16_000,
    "pronouns": "He said I. " * 20_000,
}
ASKS_ALL = f"{SCENE} Tell it in the first person and in 300 words."


@pytest.mark.parametrize("text", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize("name", CHECKS)
def test_odd_texts_get_a_score_and_places_inside_them(name, text, known):
    sound(CHECKS[name](ASKS_ALL, text, True, known), text)


@given(st.text(alphabet=st.sampled_from('aA b\n.:"“”[](*_é字\u202e\x00 ROSALBA')), st.booleans())
@pytest.mark.parametrize("name", CHECKS)
def test_any_text_gets_a_score_and_places_inside_it(name, known, text, ended):
    for prompt in (ASKS_ALL, text):
        sound(CHECKS[name](prompt, text, ended, known), text)


def sound(finding, text):
    if finding is None:
        return
    assert 0 <= finding.score <= 1 and finding.opportunities >= 1
    assert all(0 <= start <= end <= len(text) for start, end in finding.spans)
    assert list(finding.spans) == sorted(finding.spans)
