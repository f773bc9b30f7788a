import pytest

from storyforge.preprocess.wordings import KINDS, PARTS, SCENE_WORDINGS
from storyforge.principles import asked


@pytest.mark.parametrize(
    "prompt, names",
    [
        ("Speakers: ANNE, MARCUS AND LUCIUS, HODGE.", ("anne", "marcus and lucius", "hodge")),
        ("speakers: Anne and  Hodge", ("anne", "hodge")),
        ("Speakers: MR. HYDE, DR. JEKYLL. In 300 words.", ("mr. hyde", "dr. jekyll")),
        ("Characters: Anne; Hodge\nIn 300 words", ("anne", "hodge")),
        ("The speakers agree.", ()),
    ],
)
def test_speakers(prompt, names):
    assert asked.speakers(prompt) == names


def test_every_scene_prompt_of_the_corpus_asks_for_drama_and_for_an_end_where_its_passage_has_one():
    for wording in SCENE_WORDINGS:
        for kind in KINDS.values():
            for (_, ends), part in PARTS.items():
                prompt = wording.format(kind=kind, part=part, place=" Place: A wood.", speakers="")
                assert asked.drama(prompt) and asked.end(prompt) == ends, prompt


@pytest.mark.parametrize(
    "prompt", ["Children play at the end of the world.", "A scene from a marriage.", "Begin it."]
)
def test_other_prompts_ask_for_neither(prompt):
    assert not asked.drama(prompt) and not asked.end(prompt)


@pytest.mark.parametrize(
    "prompt", ["a complete story", "a story that ends with a kiss", "the ending of a fairy tale"]
)
def test_an_end(prompt):
    assert asked.end(prompt)


def test_names_stand_inside_sentences_or_in_capitals():
    assert asked.names("Tell of Anselm's boat. Every day, Bo and Maria: HODGE!") == {
        "anselm",
        "maria",
        "hodge",
    }
